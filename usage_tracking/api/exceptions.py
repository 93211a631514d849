"""What goes wrong in our views becomes a problem (RFC 9457), whatever EXCEPTION_HANDLER the host has."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import Http404
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import APIException, NotFound, ParseError, ValidationError
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler

from usage_tracking import problems
from usage_tracking.exceptions import InvalidInput, OrganizationGone
from usage_tracking.problems import Problem

__all__ = ["ContentTooLarge", "LimitsChanged", "NoActiveOrganization", "OrganizationUnknown", "problem_handler"]

BODY = "body"
"""The field of an error that concerns the body as a whole."""


class NoActiveOrganization(APIException):
    """The caller belongs to no organization, or to several and has chosen none."""

    status_code = 400
    default_detail = _("You have no active organization. Choose one, or ask for an organization by its id.")
    default_code = "no_active_organization"
    problem_type = problems.NO_ACTIVE_ORGANIZATION


class OrganizationUnknown(APIException):
    """The host's resolver has failed."""

    status_code = 503
    default_detail = _("Your organization cannot be looked up right now. Please try again in a moment.")
    default_code = "organization_unknown"
    problem_type = problems.TEMPORARY_REDUCED_CAPACITY


class LimitsChanged(APIException):
    """What the caller wants to change is not what it has seen."""

    status_code = 412
    default_detail = _("The limits are not those that If-Match names. Read them again before you change them.")
    default_code = "limits_changed"
    problem_type = problems.LIMITS_CHANGED


class ContentTooLarge(APIException):
    """More than any of our endpoints has a use for."""

    status_code = 413
    default_detail = _("The body is too large.")
    default_code = "content_too_large"


def problem_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the response that tells a caller what was wrong; None for what is our own or the host's mistake."""
    if isinstance(error, InvalidInput):
        error = ValidationError({error.field: [str(error)]})
    elif isinstance(error, OrganizationGone | Http404):
        error = NotFound()  # whatever it says: nobody is told what might have been there
    elif isinstance(error, RequestDataTooBig):
        error = ContentTooLarge()
    elif isinstance(error, ParseError):
        error = ValidationError({BODY: [error.detail]})
    response: Response | None = exception_handler(error, context)
    if response is not None:
        response.data = _problem(error, response)
    return response


def _problem(error: Exception, response: Response) -> Problem:
    if isinstance(error, ValidationError):
        errors: dict[str, list[str]] = {}
        for field, message in _flat(error.detail):
            errors.setdefault(field, []).append(message)
        return problems.invalid(errors)
    type_ = getattr(error, "problem_type", problems.BLANK)
    return problems.general(response.status_code, str(response.data["detail"]), type=type_)


def _flat(detail: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (field, message) of nested errors; a nested field is `limits.api`."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            # A place in a list is no field.
            own = "" if isinstance(name, int) or name == api_settings.NON_FIELD_ERRORS_KEY else str(name)
            yield from _flat(inner, ".".join(filter(None, (path, own))))
    elif isinstance(detail, list):
        for inner in detail:
            yield from _flat(inner, path)
    else:
        yield path or BODY, str(detail)
