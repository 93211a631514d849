"""What our views have in common: they are the same in every project, and they are never counted themselves."""

from collections.abc import Callable, Collection
from typing import Any, ClassVar, NoReturn

from django.contrib.auth import get_user_model
from django.utils.translation import gettext_lazy as _
from drf_spectacular.openapi import AutoSchema
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAuthenticated, PermissionDenied, ValidationError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from usage_tracking import problems
from usage_tracking.api.exceptions import problem_handler
from usage_tracking.api.parsers import StrictJSONParser
from usage_tracking.api.permissions import IsMember, is_known
from usage_tracking.conf import suggestion
from usage_tracking.decorators import usage_exempt

__all__ = ["UsageAPIView", "actor_of"]


@usage_exempt
class UsageAPIView(APIView):
    """Nothing of the host's REST_FRAMEWORK reaches it but who its callers are: DEFAULT_AUTHENTICATION_CLASSES."""

    renderer_classes = (JSONRenderer, BrowsableAPIRenderer)
    parser_classes = (StrictJSONParser,)
    permission_classes: Any = (IsMember,)
    throttle_classes = ()
    content_negotiation_class = DefaultContentNegotiation
    metadata_class = None
    versioning_class = None
    schema = AutoSchema()
    http_method_names = ("get", "head", "post", "patch")

    parameters: ClassVar[Collection[str]] = ()
    """The names that the query string may have."""

    repeatable: ClassVar[Collection[str]] = ()
    """Those of them that it may have more than once."""

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Return the host's, as its settings name them now."""
        classes: Any = api_settings.DEFAULT_AUTHENTICATION_CLASSES
        return [authentication() for authentication in classes]

    def get_authenticate_header(self, request: Request) -> str:
        """Return the WWW-Authenticate of a 401, also where the host's first class has none and DRF would say 403."""
        return super().get_authenticate_header(request) or 'Session realm="api"'

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """Return ours."""
        return problem_handler

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse parameters that would be ignored: a misspelt filter, or all but the last of two values."""
        # Before anything about the request is told, its renderer included: the anonymous learn that they are.
        self.perform_authentication(request)
        self.check_permissions(request)
        super().initial(request, *args, **kwargs)
        if request.method not in self.allowed_methods:
            return  # that is told first
        known = [*self.parameters, *filter(None, [api_settings.URL_FORMAT_OVERRIDE])]
        if unknown := [name for name in request.query_params if name not in known]:
            raise ValidationError(
                {name: [_("There is no such parameter.") + suggestion(name, known)] for name in unknown}
            )
        given = request.query_params.lists()
        if twice := [name for name, values in given if len(values) > 1 and name not in self.repeatable]:
            raise ValidationError({name: [_("May be given only once.")] for name in twice})

    def permission_denied(self, request: Request, message: Any = None, code: str | None = None) -> NoReturn:
        """Raise NotAuthenticated for the anonymous, however the host knows its callers, else PermissionDenied."""
        if not is_known(request.user):
            raise NotAuthenticated
        raise PermissionDenied(detail=message, code=code)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Say of a problem that it is one, and of any response that it is the caller's alone."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if response.exception and isinstance(response.accepted_renderer, JSONRenderer):
            response.content_type = problems.CONTENT_TYPE
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def actor_of(request: Request) -> Any:
    """Return whom the audit trail names: the caller, unless it is no user of the database."""
    user = request.user
    return user if isinstance(user, get_user_model()) and user.pk is not None else None
