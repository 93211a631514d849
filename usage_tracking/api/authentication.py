"""Machines that start the scheduled reset."""

import hmac
from collections.abc import Mapping
from typing import Any, Final

from django.contrib.auth.models import AnonymousUser
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed
from rest_framework.request import Request

from usage_tracking.conf import usage_settings

__all__ = ["API_KEY", "APIKeyAuthentication"]

API_KEY: Final = "one of API_KEYS"
"""`request.auth` of a caller that has presented one. The key itself is kept nowhere."""

SCHEME: Final = "bearer"


class APIKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer KEY`, or `{"apiKey": KEY}` as the JSON body, with one of API_KEYS.

    The second is for cron lines that were written for another system. The first wins where a request has both.
    """

    @sensitive_variables()
    def authenticate(self, request: Request) -> tuple[Any, str] | None:
        """Return (nobody, API_KEY) for a right key, None without a key. Raises AuthenticationFailed for a wrong one."""
        scheme, _space, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != SCHEME:
            body = _body_of(request)
            if not isinstance(body, Mapping) or body.get("apiKey") is None:
                return None
            key = body["apiKey"] if isinstance(body["apiKey"], str) else ""
        if not _is_open(key):
            raise AuthenticationFailed(_("This API key is not valid."))
        return AnonymousUser(), API_KEY

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - DRF's signature
        """Return what WWW-Authenticate says in a 401."""
        return 'Bearer realm="usage"'


@sensitive_variables()
def _body_of(request: Request) -> Any:
    try:
        return request.data
    except APIException:
        return None  # no JSON, or too much of it: no place for a key


@sensitive_variables()
def _is_open(key: str) -> bool:
    """Compare with every key, each in constant time: how long it takes tells nothing about any of them."""
    presented = key.encode(errors="surrogatepass")
    found = False
    for known in usage_settings.API_KEYS:
        found |= hmac.compare_digest(presented, known.encode())
    return found
