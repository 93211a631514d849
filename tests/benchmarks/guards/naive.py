"""What is written first: read the row, add one, write it back."""

from django.http import HttpResponse

from tests.benchmarks.guards.base import Guard
from tests.benchmarks.middleware import NoOp
from usage_tracking.metering import record
from usage_tracking.models import UsagePeriod


class ReadModifyWrite(NoOp):
    """Two statements through the ORM, and nothing that keeps two requests apart."""

    async_capable = False

    def process_view(self, request, view, args, kwargs):
        row = UsagePeriod.objects.get(organization=request.organization, meter="api", is_open=True)
        if row.used >= row.limit:
            return HttpResponse(status=429)
        row.used += 1
        row.save(update_fields=["used"])
        return None


class Naive(Guard):
    """Counts in a table of ours, as good as any."""

    middleware = f"{__name__}.ReadModifyWrite"

    def prepare(self, caller):
        record(caller.organization, 1)
        UsagePeriod.objects.filter(organization=caller.organization).update(used=0)

    def used(self, caller):
        return UsagePeriod.objects.get(organization=caller.organization).used


guard = Naive()
