"""The endpoints: each is a few lines over one function of the engine."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.models import QuerySet
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from rest_framework.decorators import action
from rest_framework.exceptions import MethodNotAllowed, NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from usage_tracking.api import schema
from usage_tracking.api.authentication import APIKeyAuthentication
from usage_tracking.api.base import UsageAPIView, actor_of
from usage_tracking.api.etags import etag_of, precondition_of
from usage_tracking.api.exceptions import NoActiveOrganization, OrganizationUnknown
from usage_tracking.api.filters import OrganizationFilter, UsageFilterBackend
from usage_tracking.api.history import HistoryQuery, history_answer
from usage_tracking.api.pagination import UsagePagination
from usage_tracking.api.permissions import HasAPIKey, IsManager, IsMember, MayChangeLimits, MayReadLimits, MayReset
from usage_tracking.api.serializers import (
    EventSerializer,
    LimitsChangeSerializer,
    LimitsSerializer,
    ResetExpiredSerializer,
    ResetSerializer,
    UsageSerializer,
    statements_of,
)
from usage_tracking.entitlements import update_limits
from usage_tracking.models import STORABLE, UsageEvent, UsageTrackedOrganization, get_organization_model
from usage_tracking.organizations import database_of, stored_organization
from usage_tracking.resets import reset, reset_expired
from usage_tracking.resolvers import resolve_organization

__all__ = ["CurrentUsageView", "OrganizationViewSet", "ResetExpiredView"]

logger = logging.getLogger(__name__)

PAGE: Final = (UsagePagination.page_query_param, "page_size")

ORGANIZATIONS_A_CALL: Final = 10_000
"""So many are reset by one request, which some proxy or worker will end after a minute or less."""


class OrganizationViewSet(UsageAPIView, GenericViewSet[Any]):
    """The organizations that a caller reaches."""

    lookup_url_kwarg = "id"
    lookup_value_converter = "str"
    pagination_class = UsagePagination
    filter_backends = (UsageFilterBackend,)
    filterset_class = OrganizationFilter

    @property
    def parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names that the query string of this action may have."""
        return {
            "list": (*OrganizationFilter.base_filters, *PAGE),
            "history": tuple(HistoryQuery().fields),
            "events": PAGE,
        }.get(self.action, ())

    @property
    def repeatable(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of them that it may have more than once."""
        return ("meter",) if self.action == "history" else ()

    def get_queryset(self) -> QuerySet[Any]:
        """Return what exists for the caller; who belongs to one twice sees it once."""
        if getattr(self, "swagger_fake_view", False):  # the schema has no caller
            return get_organization_model()._default_manager.none()
        (permission,) = self.get_permissions()
        reach: QuerySet[Any] = permission.reach(self.request.user)
        return reach

    def get_object(self) -> Any:
        """Return the organization. Raises NotFound, in the same way for another's and for one that does not exist."""
        organization = _found(self.get_queryset(), self.kwargs[self.lookup_url_kwarg])
        self.check_object_permissions(self.request, organization)
        return organization

    def get_serializer_class(self) -> Any:
        """Return what the action takes: the browsable API has a form for it."""
        takes = {"limits": LimitsChangeSerializer, "change_limits": LimitsChangeSerializer, "reset": ResetSerializer}
        return takes.get(self.action, UsageSerializer)

    @schema.list_usage
    def list(self, request: Request) -> Response:  # noqa: ARG002 - a handler takes a request
        """List the usage of every organization that the caller sees."""
        queryset = self.get_queryset().distinct().order_by("pk")
        page = self.paginate_queryset(self.filter_queryset(queryset)) or ()
        return self.get_paginated_response(UsageSerializer(statements_of(page, timezone.now()), many=True).data)

    @schema.usage
    def retrieve(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002 - as the URL calls it
        """Tell the usage of one organization."""
        return _usage_response(self.get_object())

    @schema.history
    @action(detail=True)
    def history(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002 - as the URL calls it
        """Tell what was used and refused, bucket by bucket, oldest first; without usage it is 0."""
        organization = self.get_object()
        return Response(history_answer(organization, HistoryQuery.of(request), timezone.now()))

    @schema.events
    @action(detail=True, permission_classes=[IsManager], filter_backends=())
    def events(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002 - as the URL calls it
        """List what happened: announcements, resets and changes, the newest first."""
        organization = self.get_object()
        events = UsageEvent.objects.using(database_of(organization)).filter(organization_id=organization.pk)
        page = self.paginate_queryset(events.order_by("-created_at", "-pk"))
        return self.get_paginated_response(EventSerializer(page, many=True).data)

    @schema.reset
    @action(detail=True, methods=["post"], permission_classes=[MayReset])
    def reset(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002 - as the URL calls it
        """Close the open period of a meter now and begin the next."""
        organization = self.get_object()
        asked = ResetSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        reset(organization, **asked.validated_data, actor=actor_of(request))
        return _usage_response(organization)

    @schema.limits
    @action(detail=True, permission_classes=[MayReadLimits])
    def limits(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002 - as the URL calls it
        """Tell the organization's own limits, and where each that holds comes from."""
        return _limits_response(self.get_object())

    @schema.change_limits
    @limits.mapping.patch
    def change_limits(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002 - as the URL calls it
        """Change what is given, at once and with an audit event. With If-Match only if nobody was quicker."""
        organization = self.get_object()
        asked = LimitsChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        update_limits(
            organization, **asked.validated_data, precondition=precondition_of(request), actor=actor_of(request)
        )
        return _limits_response(stored_organization(organization.pk, database_of(organization)))

    def get_permissions(self) -> Sequence[Any]:
        """Return the permission of the action; a PATCH shares its URL, and so its options, with a GET."""
        return [MayChangeLimits()] if self.action == "change_limits" else super().get_permissions()


class CurrentUsageView(UsageAPIView):
    """The organization that the caller's requests count for."""

    @schema.current
    def get(self, request: Request) -> Response:
        """Tell the usage of the caller's active organization."""
        try:
            active = resolve_organization(request)
        except Exception as error:
            logger.exception("The organization of a request to %s is not known.", request.path)
            raise OrganizationUnknown from error
        # The host's resolver says who pays for a request; whether the caller may see that is another question.
        if active is None or not IsMember().reach(request.user).filter(pk=active.pk).exists():
            raise NoActiveOrganization
        return _usage_response(active)


class ResetExpiredView(UsageAPIView):
    """The scheduled reset, for a cron job that has an API key and nothing else."""

    permission_classes = (HasAPIKey,)

    def get_authenticators(self) -> list[Any]:
        """Return the one way in: a user's session or token opens nothing here, so there is no CSRF to fear."""
        return [APIKeyAuthentication()]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Tell a wrong method before a missing key."""
        if request.method != "POST":
            raise MethodNotAllowed(str(request.method))
        super().initial(request, *args, **kwargs)

    @schema.reset_expired
    @sensitive_variables()
    def post(self, request: Request) -> Response:  # noqa: ARG002 - a handler takes a request
        """Close every period that has ended."""
        report = reset_expired(limit=ORGANIZATIONS_A_CALL)
        answer = {"closed": report.closed, "organizations": report.organizations_affected, "more": report.more}
        return Response(ResetExpiredSerializer(answer).data)


def _usage_response(organization: UsageTrackedOrganization) -> Response:
    [statement] = statements_of([organization], timezone.now())
    return Response(UsageSerializer(statement).data)


def _limits_response(organization: UsageTrackedOrganization) -> Response:
    headers = {"ETag": etag_of(organization), "Cache-Control": "private, no-cache"}
    return Response(LimitsSerializer(organization).data, headers=headers)


def _found(organizations: QuerySet[Any], key: str) -> Any:
    """Return the organization with this key, of whatever type keys are. Raises NotFound."""
    field = organizations.model._meta.pk
    try:
        if not STORABLE.fullmatch(key):
            raise NotFound
        value = field.to_python(key)
        organization = organizations.filter(pk=value).first()
    except (TypeError, ValueError, OverflowError, DjangoValidationError) as error:
        raise NotFound from error
    # Some databases find "ACME" under "acme", and Python reads "07" and "0_7" as 7.
    if organization is None or str(organization.pk) not in {key, str(value) if not isinstance(value, int) else key}:
        raise NotFound
    return organization
