"""Which organizations a list shows, and in which order."""

from typing import TYPE_CHECKING, Any

import django_filters
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import extend_schema_field

from usage_tracking import selections
from usage_tracking.api.fields import MeterField, PlanField
from usage_tracking.conf import usage_settings
from usage_tracking.exceptions import InvalidInput
from usage_tracking.models import check_plan
from usage_tracking.periods import ResetMode
from usage_tracking.quotas import DEFAULT_METER

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OrganizationFilter", "UsageFilterBackend"]

Organizations = QuerySet[Any]

ORDERINGS = [sign + name for name in ("id", "plan", "used", "percentage") for sign in ("", "-")]


def validate_meter(name: str) -> None:
    """Refuse a meter that METERS lacks."""
    if name not in usage_settings.METERS:
        raise ValidationError(_("There is no meter “%(name)s”."), params={"name": name})


def validate_plan(name: str) -> None:
    """Refuse a plan that PLANS lacks."""
    try:
        check_plan(name)
    except InvalidInput as error:
        raise ValidationError(_("There is no plan “%(name)s”."), params={"name": name}) from error


def _flag(label: Any, method: str) -> django_filters.Filter:
    # Not a BooleanFilter: that one takes whatever it does not understand for "not given".
    flag = django_filters.TypedChoiceFilter(
        label=label,
        choices=[("", "---------"), ("true", _("Yes")), ("false", _("No"))],
        coerce="true".__eq__,
        method=method,
    )
    return _described(flag, {"type": ["boolean", "string"], "enum": [True, False, ""]})


def _described(filter_: django_filters.Filter, schema: Any) -> django_filters.Filter:
    return extend_schema_field(schema)(filter_)  # type: ignore[type-var]


class OrganizationFilter(django_filters.FilterSet):
    """By plan, reset mode and the state of a meter (default: any). Blank is not given: forms send all their fields."""

    plan = _described(
        django_filters.CharFilter(label=_("Plan"), method="by_plan", validators=[validate_plan]),
        PlanField(allow_blank=True),
    )
    reset_mode = _described(
        django_filters.ChoiceFilter(
            label=_("Reset mode"), choices=[(mode.value, mode.value) for mode in ResetMode], method="by_reset_mode"
        ),
        {"type": "string", "enum": [*(mode.value for mode in ResetMode), ""]},
    )
    near_limit = _flag(_("Near the limit, but not at it"), "by_state")
    exceeded = _flag(_("At the limit or past it"), "by_state")
    expired = _flag(_("Waiting for the scheduled reset"), "by_state")
    meter = _described(
        django_filters.CharFilter(
            label=_("Meter that the states and the order are about"), method="unchanged", validators=[validate_meter]
        ),
        MeterField(allow_blank=True),
    )
    ordering = _described(
        django_filters.ChoiceFilter(
            label=_("Order"), choices=[(name, name) for name in ORDERINGS], method="ordered", empty_label=None
        ),
        {"type": "string", "enum": [*ORDERINGS, ""], "default": "id"},
    )

    def by_plan(self, queryset: Organizations, _name: str, value: str) -> Organizations:
        """Narrow it down to one plan."""
        return selections.on_plan(queryset, value)

    def by_reset_mode(self, queryset: Organizations, _name: str, value: str) -> Organizations:
        """Narrow it down to one reset mode."""
        return selections.in_reset_mode(queryset, ResetMode(value))

    def by_state(self, queryset: Organizations, name: str, value: bool) -> Organizations:  # noqa: FBT001 - django-filter's signature
        """Narrow it down to those in a state, or to all others."""
        selection: Callable[..., Organizations] = getattr(selections, name)
        meter = self.form.cleaned_data.get("meter") or None
        found = selection(queryset, now=timezone.now(), meter=meter)
        return found if value else queryset.exclude(pk__in=found.order_by().values("pk"))

    def unchanged(self, queryset: Organizations, _name: str, _value: str) -> Organizations:
        """A meter by itself excludes nobody: everyone has each."""
        return queryset

    def ordered(self, queryset: Organizations, _name: str, value: str) -> Organizations:
        """Sort them; equal ones by their key."""
        field, descending = value.removeprefix("-"), value.startswith("-")
        if field in {"used", "percentage"}:
            sort: Callable[..., Organizations] = getattr(selections, f"by_{field}")
            meter = self.form.cleaned_data.get("meter") or DEFAULT_METER
            return sort(queryset, now=timezone.now(), meter=meter, descending=descending)
        sign = "-" if descending else ""
        return queryset.order_by(f"{sign}pk") if field == "id" else queryset.order_by(f"{sign}usage_plan", "pk")


class UsageFilterBackend(DjangoFilterBackend):
    """Filters as the view's FilterSet says, whatever DEFAULT_FILTER_BACKENDS the host has."""

    def to_html(self, request: Any, queryset: Organizations, view: Any) -> str:
        """Return the form for the browsable API, if django_filters is installed as an app and so has its templates."""
        return super().to_html(request, queryset, view) if apps.is_installed("django_filters") else ""
