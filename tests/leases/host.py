"""A host whose every view runs for the organization with the key `ORGANIZATION`, and notes that it did.

`SERVED` is a file with one byte for each use that was admitted, whatever became of its process.
"""

import multiprocessing
import os
import sys
from functools import cache
from itertools import count
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.factories import Organization
from tests.leases import child
from usage_tracking.metering import consume
from usage_tracking.models import UsageLease

# What runserver reloads when it is touched.
if "TOUCHED" in os.environ:
    __import__("touched")


@cache
def organization() -> Any:
    """Return the organization, which is read once."""
    return Organization._base_manager.get(pk=os.environ["ORGANIZATION"])


def organization_of(request: HttpRequest) -> Any:
    """Return whose request it is: ORGANIZATION_RESOLVER."""
    return organization()


async def organization_of_async(request: HttpRequest) -> Any:
    """Do the same on the event loop, once a thread has read it."""
    return organization() if organization.cache_info().currsize else await sync_to_async(organization)()


def serve(request: HttpRequest) -> HttpResponse:
    """Note the use."""
    note()
    return HttpResponse("served")


async def aserve(request: HttpRequest) -> HttpResponse:
    """Note the use, without a thread."""
    note()
    return HttpResponse("served")


urlpatterns = [path("api/serve/", serve), path("api/aserve/", aserve)]


def note() -> None:
    """Write down that something was admitted: one write to a file opened for appending is whole."""
    served = os.open(os.environ["SERVED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(served, b".")
    os.close(served)


# -- without a server --------------------------------------------------------------------------------------------------


def use(times: int | None = None) -> None:
    """Consume so many times, or for ever."""
    for _ in range(times) if times else count():
        assert consume(organization())
        note()


def fail() -> None:
    """Raise when something is on lease."""
    use(50)
    raise SystemExit("a command that fails")


def multiply(method: str) -> None:
    """Consume in this process, in a child of multiprocessing, and in this one again."""
    use(50)
    connections.close_all()
    process = multiprocessing.get_context(method).Process(target=child.use, args=[50])
    process.start()
    process.join()
    assert process.exitcode == 0
    use(50)


def fork() -> None:
    """Consume in this process, in a copy of it that ends as any process does, and in this one again."""
    use(50)
    lent = set(UsageLease.objects.values_list("pk", "settled"))
    assert lent
    connections.close_all()
    pid = os.fork()
    if not pid:
        use(50)
        sys.exit()
    assert os.waitpid(pid, 0) == (pid, 0)
    # It has neither spent nor returned what its parent has.
    assert set(UsageLease.objects.values_list("pk", "settled")) == lent
    use(50)
