"""What an event has kept, in words: its data is JSON for programs, and people read it too."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from usage_tracking.admin.display import (
    anchor_text,
    choice_label,
    feature_text,
    instant_text,
    limit_text,
    number_text,
    usage_field,
)
from usage_tracking.conf import label_of
from usage_tracking.models import UsageEvent
from usage_tracking.periods import parse_anchor

__all__ = ["Fact", "facts_of"]

CHOICES: Final = ("enforcement", "reset_mode", "reset_period")
MERGED: Final = ("limits", "features")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that an event says; `was` is what it was before, where the event has changed it."""

    name: str
    value: str
    was: str = ""


def facts_of(event: UsageEvent) -> list[Fact]:
    """Return what the event's data says, what it has changed first. Asks no database."""
    data = dict(event.data)
    changes = data.pop("changes", {})
    return [*_changes(changes), *_facts(data)]


def _changes(changes: Mapping[str, Mapping[str, Any]]) -> Iterator[Fact]:
    for field, change in changes.items():
        old, new = change["old"], change["new"]
        if field in MERGED:
            yield from _merged(field, old or {}, new or {})
        else:
            yield Fact(name=_field_name(field), value=_scalar(field, new), was=_scalar(field, old))


def _merged(field: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Fact]:
    text = limit_text if field == "limits" else feature_text
    for name in dict.fromkeys([*old, *new]):
        was, value = (text(terms[name]) if name in terms else _("inherit") for terms in (old, new))
        if was != value:
            title = _("Limit: %(meter)s") % {"meter": label_of(name)}
            yield Fact(
                name=title if field == "limits" else _("Feature: %(name)s") % {"name": name}, value=value, was=was
            )


def _scalar(field: str, value: str) -> str:
    if not value:
        return _("inherit")
    return choice_label(field, value) if field in CHOICES else _anchor(value) if field == "anchor" else value


def _anchor(value: str) -> str:
    try:
        return anchor_text(parse_anchor(value))
    except ValueError:
        return value


def _facts(data: dict[str, Any]) -> Iterator[Fact]:
    yield from _used(data)
    if "charged" in data:
        yield from _lost(data)
    elif "amount" in data:
        yield Fact(name=_("Given back"), value=number_text(data.pop("amount")))
    if period := data.pop("recomputed_period", None):
        yield Fact(name=_("Period that was recomputed"), value=_period(period["start"], period["end"]))
    if "mode" in data:
        yield Fact(name=_("Closed by"), value=choice_label("reset_mode", data.pop("mode")))
    if "plan" in data:
        yield Fact(name=_("Plan"), value=data.pop("plan"))
    if "period_start" in data:
        yield Fact(name=_("Open period"), value=_period(data.pop("period_start"), data.pop("period_end", None)))
    for name, value in data.items():
        yield Fact(name=name, value=str(value))


def _used(data: dict[str, Any]) -> Iterator[Fact]:
    """Tell amounts: `used` is of the open period, `previous_used` of the one that the event is about."""
    used, before, recomputed = (data.pop(key, None) for key in ("used", "previous_used", "recomputed_used"))
    if recomputed is not None:
        yield Fact(name=_("Used, recomputed from history"), value=number_text(recomputed), was=number_text(before))
    elif before is not None and "mode" in data:
        yield Fact(name=_("Used in the closed period"), value=number_text(before))
    elif before is not None:
        yield Fact(name=_("Used"), value=number_text(used), was=number_text(before))
        return
    if used is not None:
        yield Fact(name=_("Used in the open period"), value=number_text(used))


def _lost(data: dict[str, Any]) -> Iterator[Fact]:
    """Tell of a lease that was lost: what nobody knows to be used, and what was made of it."""
    yield Fact(name=_("Was on lease"), value=number_text(data.pop("amount")))
    yield Fact(name=_("Counted as used"), value=number_text(data.pop("charged")))
    yield Fact(name=_("Holder"), value=data.pop("holder"))


def _period(start: str, end: str | None) -> str:
    begins = instant_text(timezone.localtime(datetime.fromisoformat(start)))
    if end is None:
        return _("since %(start)s, until somebody resets it") % {"start": begins}
    return _("%(start)s to %(end)s") % {
        "start": begins,
        "end": instant_text(timezone.localtime(datetime.fromisoformat(end))),
    }


def _field_name(field: str) -> str:
    return capfirst(str(usage_field(field).verbose_name))
