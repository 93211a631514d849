"""What a person of the SaaS team fills in: real fields for each meter and feature, and always a reason."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import available_timezones

from django import forms
from django.forms import BoundField
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from usage_tracking.admin.display import anchor_text, choice_label, feature_text, limit_text, usage_field
from usage_tracking.conf import usage_settings
from usage_tracking.entitlements import INHERIT, changes_of
from usage_tracking.exceptions import InvalidInput
from usage_tracking.models import UsageTrackedOrganization, get_organization_model
from usage_tracking.plans import Explanation, plan_named, sources_of
from usage_tracking.quotas import DEFAULT_METER, MAX_AMOUNT

__all__ = ["AdjustForm", "LimitsForm", "OperationForm", "RefundForm", "ResetForm"]

KEEP: Final = "keep"
"""Of several organizations at once: leave the value as each of them has it."""

OWN: Final = "own"
UNLIMITED: Final = "unlimited"
YES, NO = "yes", "no"

CHOSEN: Final = ("plan", "enforcement", "reset_mode", "reset_period", "time_zone")
SCALARS: Final = (*CHOSEN, "anchor")
USAGE_FIELDS: Final = tuple(f"usage_{field}" for field in (*SCALARS, "limits", "features"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a form: a label and the fields beside it."""

    label: str
    fields: Sequence[BoundField]
    hint: str = ""
    unit: str = ""
    is_required: bool = False

    @property
    def errors(self) -> list[str]:
        """What is wrong with any of its fields."""
        return [str(error) for field in self.fields for error in field.errors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Some rows under a heading."""

    title: Any
    rows: Sequence[Row]


class OperationForm(forms.Form):
    """What every operation asks for: why."""

    reason = forms.CharField(
        label=_("Reason"),
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("Kept in the audit trail, with your name."),
    )

    # The browser's own messages are not in the admin's language, nor where a screen reader expects them.
    use_required_attribute = False

    data: Any  # a QueryDict, or nothing

    def __init__(self, organizations: Sequence[UsageTrackedOrganization], data: Any = None) -> None:
        super().__init__(data)
        self.organizations = organizations
        for field in self.fields.values():
            if field.required and not isinstance(field.widget, forms.CheckboxSelectMultiple):  # any of them will do
                field.widget.attrs["aria-required"] = "true"

    def sections(self) -> Iterator[Section]:
        """The visible fields, in order."""
        fields = [self[name] for name in self.fields if not self[name].is_hidden]
        yield Section(title="", rows=[_row(field) for field in fields])

    def posted(self) -> Iterator[tuple[str, str]]:
        """What was filled in, name by name, to be carried through the confirmation."""
        for name in self.fields:
            key = self.add_prefix(name)
            for value in self.data.getlist(key):
                yield key, value


def _row(field: BoundField) -> Row:
    return Row(
        label=str(field.label),
        fields=[field],
        hint=str(field.field.help_text or ""),
        is_required=field.field.required,
    )


def _meter_choices() -> list[tuple[str, str]]:
    return [(name, str(meter.label)) for name, meter in usage_settings.METERS.items()]


class ResetForm(OperationForm):
    """Which meters to reset."""

    meters = forms.MultipleChoiceField(
        label=_("Meters"),
        choices=_meter_choices,
        widget=forms.CheckboxSelectMultiple,
        initial=lambda: list(usage_settings.METERS),
    )
    field_order = ("meters", "reason")


class RefundForm(OperationForm):
    """How much of which meter to give back."""

    meter = forms.ChoiceField(label=_("Meter"), choices=_meter_choices)
    amount = forms.IntegerField(
        label=_("Amount"),
        min_value=1,
        max_value=MAX_AMOUNT,
        help_text=_("Comes back from the open period, newest first; never below zero."),
    )
    field_order = ("meter", "amount", "reason")


class AdjustForm(OperationForm):
    """What the open period of a meter has really used."""

    meter = forms.ChoiceField(label=_("Meter"), choices=_meter_choices)
    used = forms.IntegerField(
        label=_("Used"),
        min_value=0,
        max_value=MAX_AMOUNT,
        help_text=_("What the open period shall have used. Thresholds that this reaches are announced."),
    )
    field_order = ("meter", "used", "reason")


# -- plan, limits and features -----------------------------------------------------------------------------------------


class FeatureNumberField(forms.DecimalField):
    """A number as JSON has it: whole, or with a fraction."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=-MAX_AMOUNT, max_value=MAX_AMOUNT, max_digits=24, **options)

    def clean(self, value: Any) -> Any:
        """Return an int, a float or None."""
        number = super().clean(value)
        if number is None:
            return None
        return int(number) if number == number.to_integral_value() else float(number)


class LimitsForm(OperationForm):
    """Plan, calendar, limits and features of one organization, or what to set on several.

    For one, each field shows what is stored, and only what was changed is written. For several, each begins at "leave
    as it is".
    """

    version = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, organizations: Sequence[UsageTrackedOrganization], data: Any = None) -> None:
        super().__init__(organizations, data)
        self.one = organizations[0] if len(organizations) == 1 else None
        # What "inherit" means; of several it means something else for each.
        self.inherited = None if self.one is None else _without_own(self.one)
        self.meters = {quote(name, safe=""): meter for name, meter in usage_settings.METERS.items()}
        self.features = {quote(name, safe=""): name for name in sorted(self._known_features())}
        self._add_scalars()
        self._add_limits()
        self._add_features()
        self.order_fields([*(name for name in self.fields if name != "reason"), "reason"])
        if self.one is not None:
            self.initial["version"] = version_of(self.one)

    # -- fields --------------------------------------------------------------------------------------------------------

    def _add_scalars(self) -> None:
        known = {
            "plan": list(dict.fromkeys([*usage_settings.PLANS, usage_settings.DEFAULT_PLAN])),
            "time_zone": sorted(available_timezones() - {"localtime", "Factory"}),
        }
        for name in CHOSEN:
            model_field = usage_field(name)
            choices = [(value, value) for value in known.get(name, ())] or list(model_field.choices or ())
            stored = "" if self.one is None else getattr(self.one, f"usage_{name}")
            if stored and stored not in dict(choices):
                # It was removed from PLANS since, say. It can stay, but nobody can choose it anew.
                choices.append((stored, _("%(value)s (unknown)") % {"value": stored}))
            self.fields[name] = forms.ChoiceField(
                label=capfirst(model_field.verbose_name),
                required=False,
                choices=[*self._inherit("", self._text(name)), *choices],
            )
            self.initial[name] = KEEP if self.one is None else getattr(self.one, f"usage_{name}")
        anchor = usage_field("anchor")
        self.fields["anchor"] = forms.CharField(
            label=capfirst(anchor.verbose_name),
            required=False,
            max_length=40,
            help_text=self._anchor_hint(anchor.help_text),
            validators=anchor.validators,
        )
        self.initial["anchor"] = "" if self.one is None else self.one.usage_anchor

    def _anchor_hint(self, meaning: Any) -> str:
        if self.inherited is None:
            return gettext("Leave it empty to keep each organization's own.")
        inherited = anchor_text(self.inherited[DEFAULT_METER].anchor.value)
        return f"{meaning} " + gettext("Empty: inherit (%(value)s).") % {"value": inherited}

    def _inherit(self, value: str, text: Any) -> list[tuple[str, Any]]:
        """The first choices: what an organization has without a value of its own."""
        if self.one is None:
            return [(KEEP, _("leave as it is")), (value, _("inherit"))]
        return [(value, _("inherit (%(value)s)") % {"value": text})]

    def _text(self, name: str) -> str:
        if self.inherited is None:
            return ""
        if name == "plan":
            return usage_settings.DEFAULT_PLAN
        value = getattr(self.inherited[DEFAULT_METER], name).value
        return value.key if name == "time_zone" else choice_label(name, value.value)

    def _add_limits(self) -> None:
        for key, meter in self.meters.items():
            text = limit_text(self.inherited[meter.name].limit.value) if self.inherited else ""
            choices = [*self._inherit(INHERIT, text), (UNLIMITED, _("unlimited")), (OWN, _("this number"))]
            self.fields[f"limit-{key}"] = forms.ChoiceField(label=str(meter.label), choices=choices)
            self.fields[f"number-{key}"] = forms.IntegerField(
                label=_("%(meter)s: number") % {"meter": meter.label},
                required=False,
                min_value=0,
                max_value=MAX_AMOUNT,
                widget=forms.NumberInput(attrs={"aria-label": _("%(meter)s: number") % {"meter": meter.label}}),
            )
            if self.one is None:
                self.initial[f"limit-{key}"] = KEEP
                continue
            own = _mapping(self.one.usage_limits)
            number = own.get(meter.name)
            self.initial[f"limit-{key}"] = INHERIT if meter.name not in own else UNLIMITED if number is None else OWN
            self.initial[f"number-{key}"] = number

    def _add_features(self) -> None:
        inherited = self.inherited[DEFAULT_METER].features if self.inherited else {}
        own = {} if self.one is None else _mapping(self.one.usage_features)
        for key, name in self.features.items():
            kind = self._kind_of(name)
            text = feature_text(inherited[name].value) if name in inherited else _("not set")
            values = [(YES, _("yes")), (NO, _("no"))] if kind is bool else [(OWN, _("this value"))]
            self.fields[f"feature-{key}"] = forms.ChoiceField(
                label=name, choices=[*self._inherit(INHERIT, text), *values]
            )
            self.initial[f"feature-{key}"] = KEEP if self.one is None else INHERIT
            if kind is bool:
                if name in own:
                    self.initial[f"feature-{key}"] = YES if own[name] else NO
                continue
            label = _("%(feature)s: value") % {"feature": name}
            attrs = {"aria-label": label}
            self.fields[f"value-{key}"] = (
                forms.CharField(label=label, required=False, max_length=500, widget=forms.TextInput(attrs))
                if kind is str
                else FeatureNumberField(label=label, required=False, widget=forms.NumberInput(attrs | {"step": "any"}))
            )
            if name in own:
                self.initial[f"feature-{key}"] = OWN
                self.initial[f"value-{key}"] = own[name]

    # -- what is known -------------------------------------------------------------------------------------------------

    def _plan_features(self) -> Iterator[Mapping[str, Any]]:
        for name in usage_settings.PLANS:
            plan = plan_named(name)
            if plan is not None:
                yield plan.features

    def _known_features(self) -> set[str]:
        known = {name for features in self._plan_features() for name in features}
        return known.union(*(_mapping(one.usage_features) for one in self.organizations))

    def _kind_of(self, name: str) -> type:
        """The type of a feature's widget: what the organizations have, else what the plans say."""
        mappings = [*(_mapping(one.usage_features) for one in self.organizations), *self._plan_features()]
        kinds = [type(features[name]) for features in mappings if name in features]
        kind = kinds[0] if kinds else str
        return float if kind in (int, float) else kind

    # -- what comes out ------------------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Hold the fields to each other, and the form to what is stored by now."""
        super().clean()
        for choice, value in self._pairs():
            if choice in self.errors or value in self.errors:
                continue
            is_own, entered = self.cleaned_data[choice] == OWN, self.cleaned_data[value]
            if is_own and entered in (None, ""):
                self.add_error(value, _("Enter what it shall be."))
            elif not is_own and value in self.changed_data and entered not in (None, ""):
                self.add_error(choice, self._unused(choice, value))
        if self.errors:
            return
        if self.one is not None and self.cleaned_data["version"] != version_of(self.one):
            # The next answer to this form is about what is stored now.
            self.data = self.data.copy()
            self.data["version"] = version_of(self.one)
            raise forms.ValidationError(
                _("Somebody else has changed these terms while this page was open. Check what you want to change."),
                code="changed",
            )
        wanted = self.wanted()
        if not wanted:
            raise forms.ValidationError(_("Nothing would change."), code="nothing")
        try:
            changes_of(get_organization_model()(), **wanted)
        except InvalidInput as error:
            # What the fields let pass the engine still refuses: a feature's name, say.
            self.add_error(error.field if error.field in self.fields else None, str(error))

    def _unused(self, choice: str, value: str) -> str:
        """What to say about a value beside which another choice stands."""
        choices = dict(self.fields[choice].choices)  # type: ignore[attr-defined]
        return gettext(
            "You have entered %(value)s, but chosen “%(choice)s”. Choose “%(own)s” to use what you have entered, or "
            "take it out."
        ) % {
            "value": self.data.get(self.add_prefix(value)),
            "choice": choices[self.cleaned_data[choice]],
            "own": choices[OWN],
        }

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for key in self.meters:
            yield f"limit-{key}", f"number-{key}"
        for key in self.features:
            if f"value-{key}" in self.fields:
                yield f"feature-{key}", f"value-{key}"

    def wanted(self) -> dict[str, Any]:
        """Return the arguments of `update_limits` for what was changed."""
        cleaned = self.cleaned_data
        wanted: dict[str, Any] = {}
        for name in SCALARS:
            value = cleaned.get(name, "")
            if self.one is not None:
                is_kept = value == getattr(self.one, f"usage_{name}")
            else:
                is_kept = value == (KEEP if name != "anchor" else "")
            if not is_kept:
                wanted[name] = value
        limits = {
            meter.name: {UNLIMITED: None, OWN: cleaned.get(f"number-{key}")}.get(cleaned[f"limit-{key}"], INHERIT)
            for key, meter in self.meters.items()
            if cleaned[f"limit-{key}"] != KEEP
        }
        features = {
            name: {YES: True, NO: False, OWN: cleaned.get(f"value-{key}")}.get(cleaned[f"feature-{key}"], INHERIT)
            for key, name in self.features.items()
            if cleaned[f"feature-{key}"] != KEEP
        }
        if limits := self._changed(limits, "usage_limits"):
            wanted["limits"] = limits
        if features := self._changed(features, "usage_features"):
            wanted["features"] = features
        return wanted

    def _changed(self, merge: Mapping[str, Any], field: str) -> dict[str, Any]:
        if self.one is None:
            return dict(merge)
        own = _mapping(getattr(self.one, field))
        # 1 == True, and a feature may change from one to the other.
        return {name: value for name, value in merge.items() if repr(own.get(name, INHERIT)) != repr(value)}

    def sections(self) -> Iterator[Section]:
        """Plan and calendar, limits, features, reason."""
        yield Section(title=_("Plan"), rows=self._rows("plan", "enforcement"))
        yield Section(
            title=_("Limits"),
            rows=[
                Row(label=str(meter.label), fields=[self[f"limit-{key}"], self[f"number-{key}"]], unit=str(meter.unit))
                for key, meter in self.meters.items()
            ],
        )
        if self.features:
            yield Section(
                title=_("Features"),
                rows=[
                    Row(
                        label=name,
                        fields=[
                            self[f"{part}-{key}"] for part in ("feature", "value") if f"{part}-{key}" in self.fields
                        ],
                    )
                    for key, name in self.features.items()
                ],
            )
        yield Section(title=_("Resets"), rows=self._rows("reset_mode", "reset_period", "anchor", "time_zone"))
        yield Section(title=_("Reason"), rows=self._rows("reason"))

    def _rows(self, *names: str) -> list[Row]:
        return [_row(self[name]) for name in names]


def _without_own(organization: UsageTrackedOrganization) -> dict[str, Explanation]:
    """What would hold, meter by meter, if the organization had nothing but its plan."""
    bare = copy(organization)
    for field in USAGE_FIELDS:
        if field != "usage_plan":
            setattr(bare, field, {} if field in {"usage_limits", "usage_features"} else "")
    return {name: sources_of(bare, meter) for name, meter in usage_settings.METERS.items()}


def version_of(organization: UsageTrackedOrganization) -> str:
    """A fingerprint of the usage fields, to notice that somebody else has changed them."""
    values = [getattr(organization, field) for field in USAGE_FIELDS]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _mapping(stored: Any) -> Mapping[str, Any]:
    return stored if isinstance(stored, Mapping) else {}
