"""What staff can do to the usage of one organization or many: told beforehand, done through the engine, told after."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usage_tracking.admin.display import Term, number_text, terms_shown, usage_field
from usage_tracking.admin.forms import AdjustForm, LimitsForm, OperationForm, RefundForm, ResetForm
from usage_tracking.conf import label_of
from usage_tracking.entitlements import changes_of, update_limits
from usage_tracking.exceptions import UsageTrackingError
from usage_tracking.metering import adjust, refund, usages_of
from usage_tracking.models import UsageTrackedOrganization
from usage_tracking.resets import reset

__all__ = ["OPERATIONS", "Operation", "Outcome", "Step"]

logger = logging.getLogger(__name__)

Organizations = Sequence[UsageTrackedOrganization]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A value, as people read it, and where it comes from, if that matters."""

    text: str
    source: str = ""
    is_number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that will happen to an organization."""

    organization: UsageTrackedOrganization
    what: str
    before: Told
    after: Told

    @property
    def told(self) -> tuple[Told, Told]:
        """Both, in the order of the table's columns."""
        return self.before, self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one organization."""

    organization: UsageTrackedOrganization
    text: str
    is_done: bool


class Operation(ABC):
    """One thing that staff can do. Each needs a permission, a form with a reason, and a confirmation."""

    name: ClassVar[str]
    permission: ClassVar[str]
    """Its name in `usage_tracking`, and in the admin's `has_…_permission`."""
    title: ClassVar[Any]
    verb: ClassVar[Any]
    """What the button that does it says."""
    form: ClassVar[type[OperationForm]]
    tells_sources: ClassVar[bool] = False
    """Whether its steps say where each value comes from."""

    @abstractmethod
    def steps(self, organizations: Organizations, form: Any) -> Iterator[Step]:
        """Tell what will happen, without doing it. A fixed number of queries."""

    @abstractmethod
    def perform(self, organization: UsageTrackedOrganization, form: Any, actor: Any) -> str:
        """Do it and tell what was done."""

    def attempt(self, organization: UsageTrackedOrganization, form: Any, actor: Any) -> Outcome:
        """Do it; what goes wrong with one organization stands in no other's way."""
        try:
            return Outcome(organization=organization, text=self.perform(organization, form, actor), is_done=True)
        except UsageTrackingError as error:
            return Outcome(organization=organization, text=str(error), is_done=False)
        except Exception:
            logger.exception("%r failed for organization %s.", self.name, organization.pk)
            return Outcome(organization=organization, text=_("something went wrong; the log says what."), is_done=False)


class Reset(Operation):
    """Close the open period of some meters and open the next."""

    name = "reset"
    permission = "reset_usage"
    title = gettext_lazy("Reset usage")
    verb = gettext_lazy("Reset")
    form = ResetForm

    def steps(self, organizations: Organizations, form: Any) -> Iterator[Step]:
        usages = usages_of(organizations, form.cleaned_data["meters"])
        for organization in organizations:
            for meter, usage in usages[organization.pk].items():
                yield _used(organization, meter, usage.used, 0)

    def perform(self, organization: UsageTrackedOrganization, form: Any, actor: Any) -> str:
        meters = form.cleaned_data["meters"]
        for meter in meters:
            reset(organization, meter, actor=actor, reason=form.cleaned_data["reason"])
        return _("%(meters)s reset.") % {"meters": ", ".join(label_of(meter) for meter in meters)}


class Refund(Operation):
    """Give an amount back to the open period."""

    name = "refund"
    permission = "reset_usage"
    title = gettext_lazy("Refund usage")
    verb = gettext_lazy("Refund")
    form = RefundForm

    def steps(self, organizations: Organizations, form: Any) -> Iterator[Step]:
        meter, amount = form.cleaned_data["meter"], form.cleaned_data["amount"]
        usages = usages_of(organizations, [meter])
        for organization in organizations:
            used = usages[organization.pk][meter].used
            after = max(used - amount, 0)
            step = _used(organization, meter, used, after)
            if used - after < amount:
                what = _("%(meter)s, of which %(amount)s come back") % {
                    "meter": step.what,
                    "amount": number_text(used - after),
                }
                step = replace(step, what=what)
            yield step

    def perform(self, organization: UsageTrackedOrganization, form: Any, actor: Any) -> str:
        cleaned = form.cleaned_data
        given = refund(organization, cleaned["amount"], cleaned["meter"], actor=actor, reason=cleaned["reason"])
        return _("%(amount)s of %(meter)s refunded.") % {
            "amount": number_text(given),
            "meter": label_of(cleaned["meter"]),
        }


class Adjust(Operation):
    """Set what the open period has used."""

    name = "adjust"
    permission = "reset_usage"
    title = gettext_lazy("Adjust usage")
    verb = gettext_lazy("Adjust")
    form = AdjustForm

    def steps(self, organizations: Organizations, form: Any) -> Iterator[Step]:
        meter = form.cleaned_data["meter"]
        usages = usages_of(organizations, [meter])
        for organization in organizations:
            yield _used(organization, meter, usages[organization.pk][meter].used, form.cleaned_data["used"])

    def perform(self, organization: UsageTrackedOrganization, form: Any, actor: Any) -> str:
        cleaned = form.cleaned_data
        usage = adjust(
            organization, used=cleaned["used"], meter=cleaned["meter"], actor=actor, reason=cleaned["reason"]
        )
        return _("%(meter)s adjusted to %(used)s.") % {
            "meter": label_of(cleaned["meter"]),
            "used": number_text(usage.used),
        }


class ChangeLimits(Operation):
    """Change plan, limits, features and calendar."""

    name = "limits"
    permission = "change_limits"
    title = gettext_lazy("Change plan and limits")
    verb = gettext_lazy("Change")
    form = LimitsForm
    tells_sources = True

    def steps(self, organizations: Organizations, form: Any) -> Iterator[Step]:
        for organization in organizations:
            wanted = copy(organization)
            changes_of(wanted, **form.wanted())
            before = {term.name: term for term in terms_shown(organization)}
            after = {term.name: term for term in terms_shown(wanted)}
            for name in [*before, *(name for name in after if name not in before)]:
                old, new = before.get(name), after.get(name)
                if old != new:
                    yield Step(organization=organization, what=name, before=_told(old), after=_told(new))

    def perform(self, organization: UsageTrackedOrganization, form: Any, actor: Any) -> str:
        changes = update_limits(organization, **form.wanted(), actor=actor, reason=form.cleaned_data["reason"])
        if not changes:
            return _("nothing to change.")
        fields = [str(usage_field(field).verbose_name) for field in changes]
        return _("%(fields)s changed.") % {"fields": ", ".join(fields)}


OPERATIONS: Final = (ChangeLimits(), Reset(), Refund(), Adjust())


def _used(organization: UsageTrackedOrganization, meter: str, before: int, after: int) -> Step:
    told, then = (Told(text=number_text(used), is_number=True) for used in (before, after))
    return Step(organization=organization, what=label_of(meter), before=told, after=then)


def _told(term: Term | None) -> Told:
    if term is None:
        return Told(text=_("not set"))
    return Told(text=term.value, source=term.source, is_number=term.is_number)
