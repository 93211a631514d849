"""The tables, and the abstract model that a host's Organization inherits.

Configuration lives on the organization; state lives in our own tables, so that a stale `organization.save()` of the
host never writes an old count back.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.signals import setting_changed
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from usage_tracking.conf import METER_NAME_LENGTH, label_of, nearest, suggestion, usage_settings
from usage_tracking.exceptions import InvalidInput
from usage_tracking.periods import Period, ResetMode, ResetPeriod, parse_anchor, parse_zone
from usage_tracking.quotas import DEFAULT_METER, Enforcement, validate_limit

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "UsageEvent",
    "UsageHistory",
    "UsageLease",
    "UsagePeriod",
    "UsageTrackedOrganization",
    "get_organization_model",
]

ORGANIZATION_SETTING: Final = "USAGE_TRACKING_ORGANIZATION_MODEL"


def _organization_label() -> str:
    label = getattr(settings, ORGANIZATION_SETTING, None)
    if not isinstance(label, str) or label.count(".") != 1:
        message = (
            f"{ORGANIZATION_SETTING} must name the model whose usage is counted, as 'app_label.ModelName', "
            f"not {label!r}. Add it to your settings, for example {ORGANIZATION_SETTING} = 'accounts.Organization'."
        )
        raise ImproperlyConfigured(message)
    return label


@cache  # asked several times per request
def get_organization_model() -> type["UsageTrackedOrganization"]:
    """Return the host's organization model. Raises ImproperlyConfigured when the setting names none."""
    label = _organization_label()
    try:
        return apps.get_model(label, require_ready=False)
    except LookupError as error:
        message = f"{ORGANIZATION_SETTING} refers to the model {label!r}, which is not installed."
        raise ImproperlyConfigured(message) from error


@cache
def key_attribute() -> str:
    """Return the attribute that holds an organization's key: `pk` finds that out anew each time it is read."""
    return str(get_organization_model()._meta.pk.attname)


def _forget_organization_model(**_: Any) -> None:
    get_organization_model.cache_clear()
    key_attribute.cache_clear()


setting_changed.connect(_forget_organization_model, dispatch_uid="usage_tracking.models")


# -- what may be stored on an organization -----------------------------------------------------------------------------

STORABLE: Final = re.compile("[^\0\ud800-\udfff]*")
"""PostgreSQL stores no NUL, and nobody half a surrogate pair, though JSON can spell both."""


def _validator(check: Callable[[Any], object], message: Any = None) -> Callable[[Any], None]:
    """Return a field validator that says `message`, else what `check` says: what is pure speaks English only."""

    def validate(value: Any) -> None:
        try:
            check(value)
        except ValueError as error:
            # Not "invalid": for that code a JSONField has a message of its own, which would hide this one.
            if message is None:
                raise ValidationError(str(error), code="unusable") from error
            raise ValidationError(message, code="unusable", params={"name": value}) from error

    return validate


def check_text(value: object, *, field: str) -> None:
    """Raise InvalidInput unless `value` is a string that every database can store."""
    if not isinstance(value, str) or not STORABLE.fullmatch(value):
        message = f"{field} must be a string without NUL and lone surrogates, not {value!r}."
        raise InvalidInput(message, field=field)


def check_limits(value: object, *, field: str = "limits") -> None:
    """Raise InvalidInput unless `value` is {meter: int | None} with meters that exist."""
    if not isinstance(value, Mapping):
        message = f"{field} must be an object of limits by meter, not {value!r}."
        raise InvalidInput(message, field=field)
    for meter, limit in value.items():
        if meter not in usage_settings.METERS:
            message = f"{field} has an unknown meter {meter!r}.{nearest(meter, list(usage_settings.METERS))}"
            raise InvalidInput(message, field=field)
        validate_limit(limit, field=f"{field}.{meter}")


MAX_FEATURES: Final = 200
"""Features that an organization or a plan may have: usage answers carry them all, and a form has a field for each."""


def check_features(value: object, *, field: str = "features") -> None:
    """Raise InvalidInput unless `value` is {name: bool | str | int | float}, with at most MAX_FEATURES names."""
    if not isinstance(value, Mapping):
        message = f"{field} must be an object of features by name, not {value!r}."
        raise InvalidInput(message, field=field)
    if len(value) > MAX_FEATURES:
        message = f"{field} has more than {MAX_FEATURES} names."
        raise InvalidInput(message, field=field)
    for name, feature in value.items():
        check_text(name, field=field)
        if not 1 <= len(name) <= METER_NAME_LENGTH:
            message = f"{field} has a name that is not 1 to {METER_NAME_LENGTH} characters long: {name!r}."
            raise InvalidInput(message, field=field)
        if isinstance(feature, str):
            check_text(feature, field=f"{field}.{name}")
        # No JSON has NaN or the infinities (RFC 8259, section 6).
        nonsense = isinstance(feature, float) and not math.isfinite(feature)
        if nonsense or not isinstance(feature, bool | int | float | str):
            message = f"{field}.{name} must be true, false, a string or a number, not {feature!r}."
            raise InvalidInput(message, field=f"{field}.{name}")


def check_plan(value: str, *, field: str = "plan") -> None:
    """Raise InvalidInput unless PLANS has the plan, or it is the default one."""
    known = list(dict.fromkeys([*usage_settings.PLANS, usage_settings.DEFAULT_PLAN]))
    if value not in known:
        message = gettext("%(field)s cannot be %(value)r.") % {"field": field, "value": value}
        message += suggestion(value, known)
        raise InvalidInput(message, field=field)


def validate_usage_plan(value: str) -> None:
    """Field validator of `usage_plan`."""
    _validator(check_plan)(value)


def validate_usage_limits(value: Any) -> None:
    """Field validator of `usage_limits`."""
    _validator(check_limits)(value)


def validate_usage_features(value: Any) -> None:
    """Field validator of `usage_features`."""
    _validator(check_features)(value)


def validate_usage_anchor(value: str) -> None:
    """Field validator of `usage_anchor`."""
    message = _("Must be a date or time in ISO 8601 from 1900 to 2200, such as 2026-01-31 or 2026-01-31T09:00.")
    _validator(parse_anchor, message)(value)


def validate_usage_time_zone(value: str) -> None:
    """Field validator of `usage_time_zone`."""
    message = _("“%(name)s” is not the IANA name of a time zone, such as Europe/Berlin.")
    _validator(parse_zone, message)(value)


RESET_MODES: Final = [
    (ResetMode.LAZY.value, _("lazy")),
    (ResetMode.SCHEDULED.value, _("scheduled")),
    (ResetMode.MANUAL.value, _("manual")),
]
ENFORCEMENTS: Final = [
    (Enforcement.HARD.value, _("hard")),
    (Enforcement.SOFT.value, _("soft")),
    (Enforcement.SHADOW.value, _("shadow")),
]


class UsageTrackedOrganization(models.Model):
    """What the host's Organization inherits: how its usage is limited and reset.

    Blank says "as the plan, else the settings, say". Write these fields through
    `entitlements.update_limits()`, which validates, locks and keeps an audit trail; a plain `save()` is noticed too.
    """

    usage_plan = models.CharField(
        _("usage plan"), max_length=64, blank=True, default="", validators=[validate_usage_plan]
    )
    usage_features = models.JSONField(
        _("usage features"),
        blank=True,
        default=dict,
        validators=[validate_usage_features],
        help_text=_("On top of the plan's: {name: true, false, a string or a number}."),
    )
    usage_limits = models.JSONField(
        _("usage limits"),
        blank=True,
        default=dict,
        validators=[validate_usage_limits],
        help_text=_("Instead of the plan's: {meter: whole number, or null for unlimited}."),
    )
    usage_reset_mode = models.CharField(
        _("usage reset mode"),
        max_length=16,
        blank=True,
        default="",
        choices=RESET_MODES,
    )
    usage_reset_period = models.CharField(
        _("usage reset period"),
        max_length=16,
        blank=True,
        default="",
        choices=[
            (ResetPeriod.HOURLY.value, _("hourly")),
            (ResetPeriod.DAILY.value, _("daily")),
            (ResetPeriod.WEEKLY.value, _("weekly")),
            (ResetPeriod.MONTHLY.value, _("monthly")),
            (ResetPeriod.QUARTERLY.value, _("quarterly")),
            (ResetPeriod.YEARLY.value, _("yearly")),
        ],
    )
    usage_anchor = models.CharField(
        _("usage anchor"),
        max_length=40,
        blank=True,
        default="",
        validators=[validate_usage_anchor],
        help_text=_("Where periods are stepped from, ISO 8601: an instant, or without offset a wall time in the zone."),
    )
    usage_time_zone = models.CharField(
        _("usage time zone"),
        max_length=64,
        blank=True,
        default="",
        validators=[validate_usage_time_zone],
        help_text=_("An IANA name, like Europe/Berlin."),
    )
    usage_enforcement = models.CharField(
        _("usage enforcement"),
        max_length=16,
        blank=True,
        default="",
        choices=ENFORCEMENTS,
    )

    class Meta:
        abstract = True

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Read an emptied JSON field, which a form hands over as None, as "nothing of its own"."""
        self.usage_features = self.usage_features or {}
        self.usage_limits = self.usage_limits or {}
        super().clean_fields(exclude)

    def get_usage_plan(self) -> str:
        """Return the name of this organization's plan; override it to read your subscription instead.

        It is asked under a lock whenever the limit is derived again, so it must not write. Blank means DEFAULT_PLAN.
        """
        return self.usage_plan

    @classmethod
    def usage_visible_to(cls, user: Any) -> "models.QuerySet[Any]":  # noqa: ARG003 - for those who override
        """Return the organizations whose usage `user` may see; override it (the default is none)."""
        return cls._default_manager.none()

    def usage_managed_by(self, user: Any) -> bool:  # noqa: ARG002 - for those who override
        """Return whether `user` may change quotas and reset usage; override it (the default is nobody).

        It grants quota changes, so it normally means the people of the SaaS team itself.
        """
        return False


# -- state -------------------------------------------------------------------------------------------------------------


def _organization_key(related_name: str) -> Any:
    # DO_NOTHING: `ledger.delete_usage` removes the rows under the organization's lock before the organization
    # itself goes. A cascade would collect them before that lock is taken and meet rows that were not there yet.
    return models.ForeignKey(
        _organization_label(),
        on_delete=models.DO_NOTHING,
        related_name=related_name,
        verbose_name=_("organization"),
        # Each of these tables has an index that begins with it.
        db_index=False,
    )


def _minute(moment: "datetime") -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}"


class UsagePeriod(models.Model):
    """What one organization used of one meter from `start` to `end`; at most one row per meter is open.

    At every commit `used` = its history rows + its open bucket, and `used_before_bucket` = its history rows.
    """

    organization = _organization_key("usage_periods")
    meter = models.CharField(_("meter"), max_length=METER_NAME_LENGTH, default=DEFAULT_METER)
    start = models.DateTimeField(_("start"))
    end = models.DateTimeField(_("end"), null=True, blank=True, help_text=_("Exclusive; none under manual reset."))
    is_open = models.BooleanField(
        _("open"),
        null=True,
        default=True,
        # Unique with NULLs: MariaDB has no conditional constraints, and NULLs never collide anywhere.
        help_text=_("True or none: at most one open period per organization and meter."),
    )
    used = models.BigIntegerField(_("used"), default=0)
    refused = models.BigIntegerField(
        _("refused"), default=0, help_text=_("Refused calls, whatever their amounts; approximate.")
    )
    on_lease = models.BigIntegerField(
        _("on lease"),
        default=0,
        help_text=_("What processes have borrowed and not settled yet: as good as used where there is a limit."),
    )
    called_back_at = models.DateTimeField(
        _("called back at"),
        null=True,
        blank=True,
        help_text=_("When somebody was last refused for want of what is on lease."),
    )
    # What governs the open period: derived from the organization, its plan and the settings.
    limit = models.BigIntegerField(_("limit"), null=True, blank=True, help_text=_("None = unlimited."))
    enforcement = models.CharField(_("enforcement"), max_length=16, choices=ENFORCEMENTS)
    reset_mode = models.CharField(_("reset mode"), max_length=16, choices=RESET_MODES)
    # The open bucket: [bucket_start, checkpoint_at), and what the history rows before it hold.
    bucket_start = models.DateTimeField(_("bucket start"))
    used_before_bucket = models.BigIntegerField(_("used before the open bucket"), default=0)
    refused_before_bucket = models.BigIntegerField(_("refused before the open bucket"), default=0)
    # The two rails: a request that stays below both is one UPDATE.
    checkpoint_at = models.DateTimeField(
        _("checkpoint"), help_text=_("The next instant at which something must happen: the open bucket ends.")
    )
    checkpoint_used = models.BigIntegerField(
        _("checkpoint amount"), help_text=_("The next amount at which something must happen.")
    )
    closed_at = models.DateTimeField(_("closed at"), null=True, blank=True)
    closed_by = models.CharField(
        _("closed by"),
        max_length=16,
        blank=True,
        default="",
        choices=RESET_MODES,
    )
    pruned_at = models.DateTimeField(
        _("pruned at"), null=True, blank=True, help_text=_("When history rows of this period were first pruned.")
    )

    class Meta:
        verbose_name = _("usage period")
        verbose_name_plural = _("usage periods")
        constraints = [
            models.UniqueConstraint(fields=["organization", "meter", "is_open"], name="usage_period_one_open"),
            models.UniqueConstraint(fields=["organization", "meter", "start"], name="usage_period_one_start"),
            models.CheckConstraint(
                condition=Q(used_before_bucket__gte=0) & Q(used__gte=F("used_before_bucket")),
                name="usage_period_used_covers_history",
            ),
            models.CheckConstraint(condition=Q(end=None) | Q(end__gt=F("start")), name="usage_period_not_empty"),
        ]
        indexes = [models.Index(fields=["is_open", "end"], name="usage_period_expiry")]
        permissions = [
            ("view_usage", "Can view the usage of organizations"),
            ("reset_usage", "Can reset the usage of organizations"),
            ("change_limits", "Can change the limits of organizations"),
        ]

    def __str__(self) -> str:
        return gettext("%(meter)s from %(start)s") % {"meter": label_of(self.meter), "start": _minute(self.start)}

    @property
    def span(self) -> Period:
        """The half-open stretch of time this row covers."""
        return Period(self.start, self.end)

    def has_ended(self, now: "datetime") -> bool:
        """Return whether `now` is past this period."""
        return self.end is not None and self.end <= now


class UsageHistory(models.Model):
    """One bucket (a day or an hour, cut where its period begins or ends) that saw usage or refusals."""

    organization = _organization_key("usage_history")
    meter = models.CharField(_("meter"), max_length=METER_NAME_LENGTH, default=DEFAULT_METER)
    period = models.ForeignKey(
        UsagePeriod, on_delete=models.DO_NOTHING, related_name="history", verbose_name=_("period")
    )
    start = models.DateTimeField(_("start"))
    end = models.DateTimeField(_("end"))
    used = models.BigIntegerField(_("used"), default=0)
    refused = models.BigIntegerField(_("refused"), default=0)

    class Meta:
        verbose_name = _("usage history")
        verbose_name_plural = _("usage history")
        constraints = [
            models.UniqueConstraint(fields=["organization", "meter", "start"], name="usage_history_one_start"),
            models.CheckConstraint(condition=Q(end__gt=F("start")), name="usage_history_not_empty"),
            models.CheckConstraint(condition=Q(used__gte=0), name="usage_history_used_not_negative"),
        ]

    def __str__(self) -> str:
        text = gettext("%(meter)s from %(start)s: %(used)s")
        used = number_format(self.used, force_grouping=True)
        return text % {"meter": label_of(self.meter), "start": _minute(self.start), "used": used}


class UsageLease(models.Model):
    """What one process has borrowed of one period, to admit requests from its memory (the leased counter).

    While it lives, `granted - settled` is on lease. Past `expires_at` its holder is believed dead: what it had not
    settled is lost, and charged as if it had been spent unless LEASE says otherwise. The row stays, so that a holder
    that comes back all the same settles against it, once.
    """

    organization = _organization_key("usage_leases")
    meter = models.CharField(_("meter"), max_length=METER_NAME_LENGTH, default=DEFAULT_METER)
    period = models.ForeignKey(
        UsagePeriod, on_delete=models.DO_NOTHING, related_name="leases", verbose_name=_("period")
    )
    bucket_start = models.DateTimeField(_("bucket start"), help_text=_("Of the bucket in which it is spent."))
    holder = models.CharField(_("holder"), max_length=64, help_text=_("Host and process."))
    granted = models.BigIntegerField(_("granted"), help_text=_("All that was ever lent on it."))
    settled = models.BigIntegerField(_("settled"), default=0, help_text=_("How much of it is counted as used."))
    expires_at = models.DateTimeField(_("expires at"))
    lost_at = models.DateTimeField(_("lost at"), null=True, blank=True)
    charged = models.BigIntegerField(_("charged"), default=0, help_text=_("What was counted when it was lost."))

    class Meta:
        verbose_name = _("usage lease")
        verbose_name_plural = _("usage leases")
        indexes = [
            models.Index(fields=["organization", "meter"], name="usage_lease_meter"),
            models.Index(fields=["lost_at", "expires_at"], name="usage_lease_expiry"),
        ]

    def __str__(self) -> str:
        return f"{self.meter}: {self.holder}"


class UsageEvent(models.Model):
    """Something that happened to an organization's usage: audit trail and outbox in one, append-only.

    An event waits in the outbox while `delivered_at` is None; those that have no signal are born delivered.
    """

    class Kind(models.TextChoices):
        """What happened."""

        WARNING = "warning", _("warning")
        EXCEEDED = "exceeded", _("exceeded")
        RESET = "reset", _("reset")
        LIMITS_UPDATED = "limits_updated", _("limits updated")
        REFUNDED = "refunded", _("refunded")
        ADJUSTED = "adjusted", _("adjusted")
        LEASE_LOST = "lease_lost", _("lease lost")

    organization = _organization_key("usage_events")
    kind = models.CharField(_("kind"), max_length=32, choices=Kind)
    meter = models.CharField(_("meter"), max_length=METER_NAME_LENGTH, default=DEFAULT_METER)
    period = models.ForeignKey(
        UsagePeriod,
        on_delete=models.DO_NOTHING,
        related_name="events",
        null=True,
        blank=True,
        verbose_name=_("period"),
    )
    threshold = models.PositiveSmallIntegerField(
        _("threshold"), null=True, blank=True, help_text=_("Percent of the limit that was reached.")
    )
    limit = models.BigIntegerField(_("limit"), null=True, blank=True)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("actor"),
    )
    actor_label = models.CharField(
        _("actor label"), max_length=255, blank=True, default="", help_text=_("Who it was, should the user be gone.")
    )
    reason = models.TextField(_("reason"), blank=True, default="")
    data = models.JSONField(_("data"), default=dict, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    claimed_until = models.DateTimeField(_("claimed until"), null=True, blank=True)
    delivered_at = models.DateTimeField(_("delivered at"), null=True, blank=True)
    dedupe_key = models.CharField(_("dedupe key"), max_length=128, null=True, blank=True, unique=True)

    class Meta:
        verbose_name = _("usage event")
        verbose_name_plural = _("usage events")
        indexes = [
            # What waits, oldest first; a claim writes to no index.
            models.Index(fields=["delivered_at", "id"], name="usage_event_outbox"),
            models.Index(fields=["organization", "created_at"], name="usage_event_audit"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} ({label_of(self.meter)})"
