"""The filters beside the lists; none of them asks the database for its choices."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from usage_tracking import selections
from usage_tracking.admin.display import choice_label
from usage_tracking.conf import usage_settings
from usage_tracking.models import get_organization_model
from usage_tracking.periods import ResetMode

__all__ = [
    "DeliveryFilter",
    "MeterFilter",
    "OpenFilter",
    "OrganizationFilter",
    "PlanFilter",
    "ResetModeFilter",
    "StateFilter",
]


class ChoiceFilter(admin.SimpleListFilter):
    """A filter of fixed choices; any other value is answered as Django answers a wrong lookup."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        """Narrow the list down, if something was chosen."""
        value = self.value()
        if value is None:
            return queryset
        if value not in {str(choice) for choice, _label in self.lookup_choices}:
            message = f"{self.parameter_name} cannot be {value!r}."
            raise IncorrectLookupParameters(message)
        return self.narrowed(queryset, value)

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows that the choice is about."""
        raise NotImplementedError


class OpenFilter(ChoiceFilter):
    """Open periods, or closed ones: those are stored as neither true nor false."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:  # noqa: ARG002, D102
        return [("open", _("open")), ("closed", _("closed"))]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:  # noqa: D102
        return queryset.filter(is_open=True if value == "open" else None)


class DeliveryFilter(ChoiceFilter):
    """Events that wait in the outbox, or those whose signal has been sent."""

    title = _("delivery")
    parameter_name = "delivery"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:  # noqa: ARG002, D102
        return [("waiting", _("waiting")), ("delivered", _("delivered"))]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:  # noqa: D102
        return queryset.filter(delivered_at__isnull=value == "waiting")


class StateFilter(ChoiceFilter):
    """Near the limit, limit reached, waiting for a reset: on any meter."""

    title = _("usage")
    parameter_name = "usage"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:  # noqa: ARG002, D102
        return [("near", _("near the limit")), ("exceeded", _("limit reached")), ("expired", _("waits for its reset"))]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:  # noqa: D102
        select = {
            "near": selections.near_limit,
            "exceeded": selections.exceeded,
            "expired": selections.expired,
        }[value]
        return select(queryset, now=timezone.now())


class PlanFilter(ChoiceFilter):
    """By stored plan."""

    title = _("usage plan")
    parameter_name = "plan"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002, D102
        return [(plan, plan) for plan in dict.fromkeys([usage_settings.DEFAULT_PLAN, *usage_settings.PLANS])]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:  # noqa: D102
        return selections.on_plan(queryset, value)


class ResetModeFilter(ChoiceFilter):
    """By who resets."""

    title = _("usage reset mode")
    parameter_name = "reset_mode"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002, D102
        return [(mode.value, choice_label("reset_mode", mode.value)) for mode in ResetMode]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:  # noqa: D102
        return selections.in_reset_mode(queryset, ResetMode(value))


class MeterFilter(ChoiceFilter):
    """By meter, of those that the settings name: a `DISTINCT` over all of history would take its time."""

    title = _("meter")
    parameter_name = "meter"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002, D102
        return [(name, str(meter.label)) for name, meter in usage_settings.METERS.items()]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:  # noqa: D102
        return queryset.filter(meter=value)


class OrganizationFilter(ChoiceFilter):
    """One organization's rows: where its own page leads to, and how to see all again. Ten thousand make no menu."""

    title = _("organization")
    parameter_name = "organization"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002, D102
        given = request.GET.get(self.parameter_name)
        if given is None:
            return []
        model = get_organization_model()
        try:
            organization = model._base_manager.filter(pk=model._meta.pk.to_python(given)).first()
        except (ValidationError, ValueError, OverflowError):
            return []  # no key of this kind
        return [] if organization is None else [(given, str(organization))]

    def has_output(self) -> bool:
        """Whether to show it: only once there is a choice to take back."""
        return self.value() is not None

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:  # noqa: D102
        return queryset.filter(organization_id=value)
