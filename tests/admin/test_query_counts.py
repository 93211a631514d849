"""How many queries a page takes does not depend on how much there is to show."""

from datetime import timedelta

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import Organization, OrganizationFactory
from usage_tracking.metering import record
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod

DAY = timedelta(days=1)


@pytest.fixture
def grow(configure):
    """Have so many organizations, meters, and days of history; rows are copied, not counted one by one."""

    def grow(organizations, meters, days):
        configure(METERS={f"m{number}": {} for number in range(meters)}, PLANS={"free": {"features": {"seats": 1}}})
        first = Organization.objects.filter(name="First").first() or OrganizationFactory(name="First")
        others = Organization.objects.bulk_create(
            OrganizationFactory.build() for _ in range(organizations - Organization.objects.count())
        )
        record(first, 1, "m0")
        period = UsagePeriod.objects.get(organization=first, meter="m0")
        UsageHistory.objects.all().delete()
        UsageHistory.objects.bulk_create(
            UsageHistory(
                organization=first,
                meter="m0",
                period=period,
                start=period.bucket_start - day * DAY,
                end=period.bucket_start - (day - 1) * DAY,
                used=1,
            )
            for day in range(1, days + 1)
        )
        values = {field.attname: getattr(period, field.attname) for field in period._meta.fields if field.name != "id"}
        UsagePeriod.objects.bulk_create(UsagePeriod(**values | {"organization_id": other.pk}) for other in others)
        UsageEvent.objects.bulk_create(UsageEvent(organization=other, kind="warning") for other in others)
        return first

    return grow


def queries(ask):
    """Count them."""
    with CaptureQueriesContext(
        connection,
    ) as captured:
        response = ask()
        assert response.status_code == 200
        content = b"".join(response) if response.streaming else response.content
    assert content
    return len(captured)


def test_the_list(operator, pages, grow, monkeypatch):
    """With 3 organizations and 3 days of history, or with 300."""
    monkeypatch.setattr(admin.site.get_model_admin(Organization), "list_per_page", 400)
    grow(3, 3, 3)
    few = queries(lambda: operator.get(pages.list))
    grow(300, 3, 300)
    assert queries(lambda: operator.get(pages.list)) == few


def test_the_page_of_one(operator, pages, grow):
    """With 3 meters and 3 days of history, or with 300."""
    first = grow(1, 3, 3)
    operator.get(pages.change(first))  # what Django asks once per process, it has asked
    few = [
        queries(lambda url=url: operator.get(url)) for url in (pages.change(first), pages.operation(first, "limits"))
    ]
    first = grow(1, 300, 300)
    many = [
        queries(lambda url=url: operator.get(url)) for url in (pages.change(first), pages.operation(first, "limits"))
    ]
    assert many == few


@pytest.mark.parametrize("name", ["reset", "limits"])
def test_a_confirmation(operator, pages, grow, name, monkeypatch):
    """For 3 organizations, or for 300."""
    monkeypatch.setattr("usage_tracking.admin.organizations.PREVIEWED", 400)
    data = {"action": f"usage_{name}_action", "usage_step": "review", "reason": "Goodwill."}
    if name == "reset":
        data["meters"] = ["api", "m0"]
    else:
        data |= {"plan": "free", "enforcement": "keep", "reset_mode": "keep", "reset_period": "keep"}
        data |= {
            "time_zone": "keep",
            "limit-api": "own",
            "number-api": "7",
            "limit-m0": "keep",
            "feature-seats": "keep",
        }

    def confirm():
        keys = [str(organization.pk) for organization in Organization.objects.all()]
        response = operator.post(pages.list, {**data, "_selected_action": keys})
        assert response.context["is_review"], response.context["form"].errors
        return response

    grow(3, 1, 1)
    few = queries(confirm)
    grow(300, 1, 1)
    assert queries(confirm) == few


@pytest.mark.parametrize("name", ["period", "history", "event"])
@pytest.mark.parametrize("page", ["changelist", "export"])
def test_records(operator, pages, grow, name, page):
    """Of 3 organizations and days, or of 300."""
    grow(3, 1, 3)
    few = queries(lambda: operator.get(pages.records(name, page)))
    grow(300, 1, 300)
    assert queries(lambda: operator.get(pages.records(name, page))) == few
