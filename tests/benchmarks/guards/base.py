"""What the comparison asks of a guard."""

from django.conf import settings
from django.http import HttpResponse


def view(status):
    """A view that answers at once, sync or async as this process serves."""

    def answer(request, who):
        return HttpResponse("ok", status=status)

    async def aanswer(request, who):
        return HttpResponse("ok", status=status)

    return aanswer if settings.BENCHMARK_ASYNC else answer


class Guard:
    """Nothing; what does something overrides what it does.

    A guard is a middleware before `bare`, or it decorates that view.
    """

    middleware = "tests.benchmarks.middleware.NoOp"
    bare = staticmethod(view(200))
    refusal = staticmethod(view(429))
    """Answers like a refusal, without asking: what is on top of that is what refusing costs."""
    guarded = bare

    def prepare(self, caller):
        """Write what has to be there before the first request."""

    def fill(self, caller):
        """Bring what an admitted request depends on to a typical size; called before each block of requests."""

    def used(self, caller):
        """How much of the caller's limit is on record."""
        raise NotImplementedError
