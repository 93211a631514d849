"""What a refused caller reads: the body, and what is left of the response it replaces."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.utils import translation

from usage_tracking import headers, problems
from usage_tracking.periods import Period
from usage_tracking.quotas import MAX_AMOUNT, Decision, Enforcement, Usage

START, END = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def usage_at(used: int, limit: int | None, end: datetime | None = END) -> Usage:
    """Return a month's usage."""
    return Usage(meter="api", used=used, limit=limit, period=Period(START, end), enforcement=Enforcement.HARD)


def refusal(used: int, limit: int, amount: int = 1) -> Decision:
    """Return a decision that had no room for `amount`."""
    return Decision(allowed=False, amount=amount, usage=usage_at(used, limit))


@pytest.mark.parametrize(
    ("used", "limit", "amount", "sentence"),
    [
        (7, 7, 1, "This request needs 1 of the quota “api”; 0 of 7 are left."),
        (6, 7, 2, "This request needs 2 of the quota “api”; 1 of 7 is left."),
        (3, 7, 9, "This request needs 9 of the quota “api”; 4 of 7 are left."),
        (9, 7, 1, "This request needs 1 of the quota “api”; 0 of 7 are left."),
        (0, 0, 1, "This request needs 1 of the quota “api”; 0 of 0 are left."),
    ],
)
def test_the_detail_has_the_numbers_and_the_instant(used, limit, amount, sentence):
    """What was needed, what is left, and when it resets, in English that agrees with the number."""
    detail = problems.quota_exceeded(refusal(used, limit, amount), NOW)["detail"]
    assert detail == f"{sentence} It resets at 2026-04-01T00:00:00Z."


def test_the_texts_can_be_translated():
    """They are looked up in the language of the request, when it is answered."""
    with translation.override("de"):
        assert problems.feature_missing("export")["title"] == translation.gettext("Feature not available")


def test_a_problem_keeps_the_response_it_is_written_on():
    """The same object, so that what others hung on it is still there."""
    response = HttpResponse("old", headers={"X-Kept": "1", "Retry-After": "7", "Content-Disposition": "attachment"})
    written = problems.write(response, problems.feature_missing("export"))
    assert written is response
    assert dict(written.headers) == {
        "X-Kept": "1",
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
    }
    assert written.reason_phrase == "Forbidden"


@pytest.mark.django_db
def test_a_problem_that_replaces_a_stream_closes_it_in_its_own_time():
    """The stream's source is closed with the response, once, and not while the request goes on."""

    class Source:
        closed: int = 0

        def __iter__(self):
            return iter([b"old"])

        def close(self):
            self.closed += 1

    source = Source()
    response = StreamingHttpResponse(source, headers={"X-Kept": "1"})
    response.set_cookie("kept", "1")
    written = problems.write(response, problems.counter_unavailable(), retry_after=3)
    assert json.loads(written.content)["status"] == 503
    assert (written.headers["X-Kept"], written.headers["Retry-After"]) == ("1", "3")
    assert written.cookies["kept"].value == "1"
    assert source.closed == 0
    written.close()
    closings: int = source.closed
    assert closings == 1


def test_a_number_too_large_for_a_field_is_capped():
    """A structured field's integers have fifteen digits, limits can have sixteen."""
    fields: dict[str, str] = {}
    headers.write(fields, usage_at(0, MAX_AMOUNT), NOW.timestamp())
    assert fields["RateLimit-Policy"] == '"api";q=999999999999999;w=2678400'
    assert fields["RateLimit"] == '"api";r=999999999999999;t=1857600'


def test_the_fields_follow_the_overage():
    """Past a limit nothing is left; the field never goes below 0."""
    fields: dict[str, str] = {}
    headers.write(fields, usage_at(12, 10), NOW.timestamp())
    assert fields["RateLimit"] == '"api";r=0;t=1857600'
