"""What can go wrong, by name."""

__all__ = [
    "InvalidAmount",
    "InvalidChange",
    "InvalidInput",
    "OrganizationGone",
    "UnknownMeter",
    "UsageTrackingError",
]


class UsageTrackingError(Exception):
    """Base class of every error this package raises on purpose."""


class InvalidInput(UsageTrackingError, ValueError):
    """A value that cannot be used; nothing was changed.

    `field` names the argument, setting or JSON field that carried it.
    """

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.field)


class InvalidAmount(InvalidInput):
    """An amount that is not a whole number from 1 to 2^53 - 1, or that would bring `used` past that."""


class InvalidChange(InvalidInput):
    """A limit, plan, mode, period, anchor, zone or feature that an organization cannot have."""


class UnknownMeter(InvalidInput):
    """A meter that the METERS setting does not name."""


class OrganizationGone(UsageTrackingError):
    """The organization was deleted before its usage could be written."""


def _rebuild(kind: type[InvalidInput], message: str, field: str) -> InvalidInput:
    # A keyword-only argument does not survive the default pickling of exceptions,
    # and these cross process borders (Celery results, pytest-xdist).
    return kind(message, field=field)
