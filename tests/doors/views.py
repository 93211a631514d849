"""Views that need no extra: the same set for sync and for async callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View

from usage_tracking.decorators import require_feature, usage_amount, usage_exempt, usage_meter

if TYPE_CHECKING:
    from collections.abc import Callable

AMOUNTS: dict[str, Any] = {"zero": 0, "true": True, "fraction": 2.5, "text": "3", "nothing": None, "3": 3}


class During:
    """What a test wants done while the view `during` runs."""

    action: Callable[[HttpRequest], Any] | None = None


def amount_asked(request: HttpRequest) -> int:
    """Weigh the request as its `amount` parameter says; raises KeyError for one that AMOUNTS lacks."""
    return AMOUNTS[request.GET["amount"]]


def outcome_seen(request: Any) -> dict[str, Any]:
    """What a view can learn from `request.usage_outcome`."""
    outcome = request.usage_outcome
    return {"outcome": outcome and {"used": outcome.decision.usage.used, "organization": str(outcome.organization.pk)}}


# -- sync --------------------------------------------------------------------------------------------------------------


def ping(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"pong": True})


@usage_amount(3)
def costly(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


@usage_amount(amount_asked)
def weighed(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


@usage_exempt
def exempt(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


@usage_meter("tokens")
def tokens(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


def status(request: HttpRequest) -> HttpResponse:
    return HttpResponse("as asked", status=int(request.GET["status"]))


def raising(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("The view failed.")


def outcome(request: HttpRequest) -> HttpResponse:
    return JsonResponse(outcome_seen(request))


def during(request: HttpRequest) -> HttpResponse:
    assert During.action is not None
    return JsonResponse({"answer": During.action(request)})


@require_feature("export")
def gated(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


# -- async -------------------------------------------------------------------------------------------------------------


async def aping(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"pong": True})


@usage_amount(3)
async def acostly(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


@usage_amount(amount_asked)
async def aweighed(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


@usage_exempt
async def aexempt(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


@usage_meter("tokens")
async def atokens(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


async def astatus(request: HttpRequest) -> HttpResponse:
    return status(request)


async def araising(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("The view failed.")


async def aoutcome(request: HttpRequest) -> HttpResponse:
    return JsonResponse(outcome_seen(request))


async def aduring(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(during)(request)


async def awaiting(request: HttpRequest) -> HttpResponse:
    """Await the action instead of calling it in a thread."""
    assert During.action is not None
    return JsonResponse({"answer": await During.action(request)})


@require_feature("export")
async def agated(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


# -- classes -----------------------------------------------------------------------------------------------------------


@usage_amount(2)
class Handlers(View):
    """The class says 2, `post` says 5, `put` names another meter, `delete` is free."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse({})

    @usage_amount(5)
    def post(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse({})

    @usage_meter("tokens")
    def put(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse({})

    @usage_exempt
    def delete(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse({})


@usage_amount(7)
class Heirs(Handlers):
    """A subclass has its own say, and its base keeps the other."""


class FreeToRead(View):
    """Reading is free, and a HEAD is a GET."""

    @usage_exempt
    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse({})


@method_decorator([usage_amount(4), require_feature("export")], name="dispatch")
class Decorated(View):
    """Decorated in Django's own way."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse({})


@method_decorator(require_feature("export"), name="dispatch")
class AsyncDecorated(View):
    """Its `dispatch` is a plain method that returns a coroutine."""

    async def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse({})
