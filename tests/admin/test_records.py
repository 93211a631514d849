"""Periods, history and events: to be read, narrowed down and taken away as CSV."""

import csv
import io
import re
from datetime import timedelta
from html import unescape

import pytest
from django.test import AsyncClient
from django.urls import reverse
from django.utils import timezone

from tests.admin.conftest import ALL
from tests.factories import OrganizationFactory
from usage_tracking.entitlements import update_limits
from usage_tracking.leases import bury_lost_leases
from usage_tracking.ledger import locked
from usage_tracking.metering import adjust, record, refund
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod
from usage_tracking.resets import reset
from usage_tracking.verification import verify_usage

NAMES = ["period", "history", "event"]
DAY = timedelta(days=1)


def rows(response):
    """The rows of an export, by column."""
    return list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))


@pytest.fixture
def two(db):
    """Two organizations with something of everything."""
    now = timezone.now()
    two = [OrganizationFactory(name="Amber"), OrganizationFactory(name="Bolt")]
    for organization in two:
        record(organization, 9, now=now - DAY)
        record(organization, 1, now=now)
        record(organization, 2, "tokens", now=now)
    return two


@pytest.mark.parametrize("name", NAMES)
def test_nobody_changes_them(operator, pages, two, name, admin_user, client):
    """Not even a superuser: there is no form, no button, no action."""
    client.force_login(admin_user)
    model = {"period": UsagePeriod, "history": UsageHistory, "event": UsageEvent}[name]
    pk = model.objects.first().pk
    url = f"{pages.records(name)}{pk}/change/"
    assert 'name="_save"' not in client.get(url).content.decode()
    assert client.post(url, {"used": "0"}).status_code == 403
    assert client.post(f"{pages.records(name)}{pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(pages.records(name, "add"), {}).status_code == 403
    assert model.objects.filter(pk=pk).exists()


@pytest.mark.parametrize("name", NAMES)
def test_they_can_be_narrowed_down(operator, pages, two, name):
    """To an organization, as its own page links to, to a meter, to a search; the export is of the same rows."""
    amber, _bolt = two
    for query in (f"organization={amber.pk}", "q=Amber", "meter=api", f"organization={amber.pk}&meter=api"):
        listed = operator.get(f"{pages.records(name)}?{query}")
        exported = rows(operator.get(listed.context["export_url"]))
        assert len(exported) == listed.context["cl"].result_count > 0
        if "Amber" in query or "organization" in query:
            assert {row["organization"] for row in exported} == {"Amber"}
        if "meter" in query:
            assert {row["meter"] for row in exported} == {"api"}
    assert f"{pages.records(name)}?organization={amber.pk}" in operator.get(pages.change(amber)).content.decode()


def test_events_by_kind_and_periods_by_date(operator, pages, two):
    """What Django's own filters do."""
    adjust(two[0], used=3, reason="Import.")
    assert {row["kind"] for row in rows(operator.get(f"{pages.records('event', 'export')}?kind__exact=adjusted"))} == {
        "adjusted"
    }
    for moment, count in ((timezone.now() - 2 * DAY, 2), (timezone.now(), 0)):
        found = operator.get(pages.records("history", "export"), {"start__gte": str(moment)})
        assert len(rows(found)) == count


def test_an_export_has_all_pages(operator, pages, organization):
    """And every column, instants in UTC, in the order of the list."""
    period = record(organization, 1) and UsagePeriod.objects.get()
    start = period.start
    UsageHistory.objects.bulk_create(
        UsageHistory(
            organization=organization, period=period, start=start + day * DAY, end=start + (day + 1) * DAY, used=day
        )
        for day in range(1201)
    )
    exported = rows(operator.get(pages.records("history", "export")))
    assert [int(row["used"]) for row in exported] == list(range(1200, -1, -1))
    assert exported[-1]["start"] == start.isoformat()
    assert exported[-1]["organization_id"] == str(organization.pk)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"])
def test_a_spreadsheet_finds_no_formula(operator, pages, organization, name):
    """In names and reasons that somebody else has written."""
    organization.name = name
    organization.save()
    adjust(organization, used=1, reason=name)
    [row] = rows(operator.get(pages.records("event", "export")))
    assert (row["organization"], row["reason"]) == (f"'{name}", f"'{name}")


def test_a_comma_and_a_quote_survive(operator, pages, organization):
    """RFC 4180."""
    adjust(organization, used=1, reason='He said "no", twice\nand left.')
    [row] = rows(operator.get(pages.records("event", "export")))
    assert row["reason"] == 'He said "no", twice\nand left.'


def test_an_export_is_streamed_under_asgi(staff, pages, two, transactional_db):
    """Chunk by chunk, not read to its end first (Django would warn of that)."""
    from asgiref.sync import async_to_sync  # noqa: PLC0415

    client = AsyncClient()
    client.force_login(staff(*ALL))

    async def ask():
        response = await client.get(pages.records("period", "export"))
        return b"".join([chunk async for chunk in response.streaming_content])

    assert async_to_sync(ask)().count(b"\r\n") == 1 + UsagePeriod.objects.count()


def test_closed_periods_are_found_and_shown_as_closed(operator, pages, organization):
    """What is stored as neither true nor false reads as closed, in the list, its filter and on the page."""
    record(organization, 7)
    reset(organization)
    closed, opened = UsagePeriod.objects.order_by("start")
    for state, period in (("closed", closed), ("open", opened)):
        response = operator.get(f"{pages.records('period')}?state={state}")
        assert list(response.context["cl"].queryset) == [period]
    page = operator.get(reverse("admin:usage_tracking_usageperiod_change", args=[closed.pk])).content.decode()
    assert "closed (manual)" in page
    assert "closed (manual)" in operator.get(pages.records("period")).content.decode()


def test_a_period_says_what_is_on_lease(operator, organization):
    """Among its bookkeeping: it explains why less is free than the limit leaves."""
    with locked(organization.pk, "api", now=timezone.now(), using="default") as [ledger]:
        ledger.lend(1200, holder="web-1:42", expires_at=timezone.now() + DAY)
    # Where Django writes a colon behind a label, unfold does not.
    assert re.search("On lease:? 1,200", detail(operator, UsagePeriod.objects.get()))


def detail(operator, record):
    """The text of a record's own page, without its markup."""
    url = reverse(f"admin:usage_tracking_{record._meta.model_name}_change", args=[record.pk])
    return " ".join(unescape(re.sub("<[^>]*>", " ", operator.get(url).content.decode())).split())


def test_records_speak_of_meters_and_numbers_as_people_do(operator, pages, organization):
    """The meter's label and grouped digits, in the lists and on the pages; never `api` and `1234567`."""
    adjust(organization, used=1_234_567)
    record(organization, 1, now=timezone.now() + DAY)  # which closes the first bucket
    for model, name in ((UsagePeriod, "period"), (UsageHistory, "history"), (UsageEvent, "event")):
        page = detail(operator, model.objects.filter(meter="api").earliest("pk"))
        assert "API requests" in page
        assert "1,234,56" in page
        assert "1234567" not in page
        assert "API requests" in operator.get(pages.records(name)).content.decode()


def test_an_event_tells_old_and_new_values_in_words(operator, organization):
    """What was stored as JSON reads as sentences of label and value, an override that was dropped as inherited."""
    record(organization, 7)
    update_limits(organization, limits={"api": 2500}, features={"seats": 12}, reset_mode="scheduled")
    update_limits(
        organization, limits={"api": "inherit", "tokens": None}, features={"seats": 13, "export": True}, plan="pro"
    )
    page = detail(operator, UsageEvent.objects.filter(kind="limits_updated").latest("pk"))
    for words in (
        "Limit: API requests 2,500 → inherit",
        "Limit: Tokens inherit → unlimited",
        "Feature: seats 12 → 13",
        "Feature: export inherit → yes",
        "Usage plan inherit → pro",
    ):
        assert words in page
    assert "{" not in page.partition("Details")[2]


def repaired(organization):
    """Have a closed period drift, and mended."""
    reset(organization)
    UsagePeriod.objects.filter(is_open=None).update(used=9)
    assert [finding.repaired for finding in verify_usage(repair=True)] == [True]


def lost(organization):
    """Have a process die with a lease, and others notice."""
    expired = timezone.now() - DAY
    with locked(organization.pk, "api", now=timezone.now(), using="default") as [ledger]:
        ledger.lend(1200, holder="web-1:42", expires_at=expired)
    assert bury_lost_leases("default") == 1200


@pytest.mark.parametrize(
    ("happen", "words"),
    [
        (lambda one: adjust(one, used=1200), "Used 7 → 1,200"),
        (lambda one: refund(one, 3), "Given back 3"),
        (reset, "Used in the closed period 7 Used in the open period 0 Closed by manual"),
        (repaired, "Used, recomputed from history 9 → 7 Used in the open period 0"),
        (lost, "Used in the open period 1,207 Was on lease 1,200 Counted as used 1,200 Holder web-1:42"),
    ],
)
def test_an_event_tells_what_it_did_to_the_count(operator, organization, happen, words):
    """What was used before and after, and what came back."""
    update_limits(organization, limits={"api": None})
    record(organization, 7)
    happen(organization)
    assert words in detail(operator, UsageEvent.objects.latest("pk"))


def test_a_meter_that_the_settings_no_longer_have_is_named(operator, organization, configure):
    """Old rows stay readable, by what the meter was called in the code."""
    record(organization, 2, "tokens")
    configure(METERS={"api": {"label": "API requests"}})
    assert "tokens from" in detail(operator, UsagePeriod.objects.get())


def test_events_that_wait_are_found(operator, pages, organization):
    """What the outbox holds, and what has been sent."""
    adjust(organization, used=5)
    UsageEvent.objects.create(organization=organization, kind="reset", data={})
    for state, kind in (("waiting", "reset"), ("delivered", "adjusted")):
        found = operator.get(f"{pages.records('event')}?delivery={state}&kind__exact={kind}").context["cl"]
        assert (
            found.result_count
            == operator.get(f"{pages.records('event')}?delivery={state}").context["cl"].result_count
            == 1
        )
