"""Reading: what is used, what was used, what happened."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import translation

from tests.api.conftest import Caller, holder, url
from tests.factories import MembershipFactory, OrganizationFactory, UserFactory
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import adjust, consume, record, usage_of
from usage_tracking.models import UsagePeriod
from usage_tracking.resets import reset
from usage_tracking.resolvers import SESSION_KEY

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _settings(configure, freeze):
    """Ten requests a month and tokens without end; it is the tenth of March."""
    freeze(NOW)
    configure(
        DEFAULT_LIMIT=10,
        METERS={"tokens": {}},
        PLANS={"free": {"features": {"seats": 3}}, "pro": {"limits": {"api": 100}, "features": {"export": True}}},
    )


def key_of(organization):
    """Return a key as JSON has it."""
    return organization.pk if isinstance(organization.pk, int) else str(organization.pk)


# -- one organization --------------------------------------------------------------------------------------------------


def test_the_usage_of_an_organization(organization, member):
    """Every field, with a meter that has a limit and one that has none."""
    consume(organization, 8)
    record(organization, 3, "tokens")
    expected = {
        "organization": key_of(organization),
        "plan": "free",
        "features": {"seats": 3},
        "reset_mode": "lazy",
        "reset_period": "monthly",
        "enforcement": "hard",
        "warning_threshold": 80,
        "meters": {
            "api": {
                "used": 8,
                "limit": 10,
                "remaining": 2,
                "overage": 0,
                "percentage": 80,
                "period_start": "2026-03-01T00:00:00Z",
                "resets_at": "2026-04-01T00:00:00Z",
            },
            "tokens": {
                "used": 3,
                "limit": None,
                "remaining": None,
                "overage": 0,
                "percentage": None,
                "period_start": "2026-03-01T00:00:00Z",
                "resets_at": "2026-04-01T00:00:00Z",
            },
        },
    }
    answer = member.get(url("detail", organization))
    assert (answer.status_code, answer.json()) == (200, expected)
    assert answer["Cache-Control"] == "no-store"
    assert member.get(url("organization-list")).json()["results"] == [expected]
    assert member.get(url("current")).json() == expected


def test_overage_and_an_open_end(organization, member, configure):
    """Soft enforcement goes past 100 %, manual reset knows no end, and without thresholds there is none to tell."""
    configure(THRESHOLDS=[])
    update_limits(organization, enforcement="soft", reset_mode="manual", plan="pro", limits={"api": 2})
    consume(organization, 5)
    answer = member.get(url("detail", organization)).json()
    assert (answer["plan"], answer["enforcement"], answer["reset_mode"]) == ("pro", "soft", "manual")
    assert (answer["features"], answer["warning_threshold"]) == ({"export": True}, None)
    api = answer["meters"]["api"]
    assert (api["overage"], api["percentage"], api["remaining"], api["resets_at"]) == (3, 250, 0, None)


def test_reading_writes_nothing(organization, member):
    """Not even a first period."""
    member.get(url("detail", organization))
    member.get(url("history", organization))
    assert not UsagePeriod.objects.exists()


def test_the_apis_own_requests_are_not_counted(organization, manager, settings, configure):
    """Wherever the host mounts it, under PATHS too."""
    configure(PATHS=["/"])
    assert manager.get(url("current")).status_code == 200
    assert manager.get(url("detail", organization)).status_code == 200
    assert manager.patch(url("limits", organization), {"limits": {"api": 0}}).status_code == 200
    assert manager.get(url("limits", organization)).status_code == 200
    assert usage_of(organization).used == 0
    assert manager.client.get("/ping/").status_code == 429


# -- the active organization -------------------------------------------------------------------------------------------


def test_the_active_organization_is_the_sessions(organization, member):
    """Who belongs to several is asked to choose; what the session says is followed."""
    other = MembershipFactory(user=member.user).organization
    answer = member.get(url("current"))
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:usage-tracking:problem:no-active-organization")
    for chosen in (organization, other):
        session = member.client.session
        session[SESSION_KEY] = str(chosen.pk)
        session.save()
        assert member.get(url("current")).json()["organization"] == key_of(chosen)


def test_a_failing_resolver_is_no_500(member, configure, caplog):
    """503, and the log says why."""

    def fail(request):
        raise RuntimeError("the directory is down")

    configure(ORGANIZATION_RESOLVER=fail)
    answer = member.get(url("current"))
    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert "the directory is down" in caplog.text


# -- the list ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(db):
    """Organizations of a staff member who sees all, by name."""
    states = {
        "idle": ({}, 0),
        "near": ({"usage_plan": "free"}, 9),
        "over": ({"usage_enforcement": "soft"}, 15),
        "pro": ({"usage_plan": "pro"}, 30),
        "unlimited": ({"usage_limits": {"api": None}}, 500),
        "manual": ({"usage_reset_mode": "manual"}, 1),
        "late": ({"usage_reset_mode": "scheduled"}, 2),
    }
    crowd = {}
    for name, (fields, used) in states.items():
        crowd[name] = OrganizationFactory(name=name, **fields)
        if used:
            adjust(crowd[name], used=used, now=NOW - 30 * DAY if name == "late" else NOW)
    adjust(crowd["idle"], used=7, meter="tokens", now=NOW)
    return crowd


@pytest.fixture
def staff(db):
    """Sees every organization."""
    return Caller(holder("view_usage"))


def listed(caller, crowd, **query):
    """Return the names of those listed, in order."""
    names = {str(organization.pk): name for name, organization in crowd.items()}
    answer = caller.get(url("organization-list"), **query)
    assert answer.status_code == 200, answer.content
    return [names[str(row["organization"])] for row in answer.json()["results"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {"idle", "near", "over", "pro", "unlimited", "manual", "late"}),
        ({"plan": "free"}, {"idle", "near", "over", "unlimited", "manual", "late"}),
        ({"plan": "pro"}, {"pro"}),
        ({"plan": ""}, {"idle", "near", "over", "pro", "unlimited", "manual", "late"}),
        ({"reset_mode": "manual"}, {"manual"}),
        ({"reset_mode": "lazy"}, {"idle", "near", "over", "pro", "unlimited"}),
        ({"near_limit": "true"}, {"near"}),
        ({"near_limit": "false"}, {"idle", "over", "pro", "unlimited", "manual", "late"}),
        ({"exceeded": "true"}, {"over"}),
        ({"exceeded": "true", "meter": "tokens"}, set()),
        ({"expired": "true"}, {"late"}),
        ({"expired": "false", "near_limit": "false", "exceeded": "false"}, {"idle", "pro", "unlimited", "manual"}),
        ({"meter": "tokens"}, {"idle", "near", "over", "pro", "unlimited", "manual", "late"}),
    ],
)
def test_filters(staff, crowd, query, expected):
    """Each narrows the list down; together they all hold."""
    assert set(listed(staff, crowd, **query)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"ordering": "used"}, ["idle", "manual", "late", "near", "over", "pro", "unlimited"]),
        ({"ordering": "percentage"}, ["unlimited", "idle", "manual", "late", "pro", "near", "over"]),
        (
            {"ordering": "used", "exceeded": "false", "near_limit": "false", "reset_mode": "lazy"},
            ["idle", "pro", "unlimited"],
        ),
    ],
)
def test_the_order_by_usage(staff, crowd, query, expected):
    """Up and down, by amount and by share; together with filters."""
    assert listed(staff, crowd, **query) == expected
    assert listed(staff, crowd, **{**query, "ordering": f"-{query['ordering']}"})[0] == expected[-1]


def test_the_order_by_another_meter_key_and_plan(staff, crowd):
    """`meter` says what `used` is about; keys are the order otherwise."""
    assert listed(staff, crowd, ordering="-used", meter="tokens")[0] == "idle"
    by_key = listed(staff, crowd)
    assert listed(staff, crowd, ordering="id") == by_key
    assert listed(staff, crowd, ordering="-id") == by_key[::-1]
    assert listed(staff, crowd, ordering="-plan")[0] == "pro"


def test_a_member_has_filters_and_orders_too(crowd):
    """Also where the host's own query joins: one's own organizations are listed once each."""
    user = UserFactory()
    for name in ("near", "over", "idle"):
        MembershipFactory(user=user, organization=crowd[name])
        MembershipFactory(user=user, organization=crowd[name])
    assert listed(Caller(user), crowd, ordering="-used") == ["over", "near", "idle"]
    assert listed(Caller(user), crowd, ordering="percentage") == ["idle", "near", "over"]
    assert listed(Caller(user), crowd, exceeded="false") == sorted(["near", "idle"], key=lambda name: crowd[name].pk)


def test_pages(staff, crowd):
    """Fifty by default, as many as asked for up to 500, linked to each other."""
    answer = staff.get(url("organization-list"), page_size=3, page=2).json()
    assert (answer["count"], len(answer["results"])) == (7, 3)
    assert answer["previous"]
    following = staff.client.get(answer["next"]).json()
    assert (len(following["results"]), following["next"]) == (1, None)
    assert staff.get(url("organization-list"), page_size=501).status_code == 200


@pytest.mark.parametrize("query", [{}, {"near_limit": "true"}, {"ordering": "-percentage", "exceeded": "false"}])
def test_a_list_takes_the_same_queries_however_long(staff, django_assert_num_queries, query):
    """Session, user, permissions, the count and the page, and one for all usage."""
    counts = []
    for more in (3, 297):
        for organization in [OrganizationFactory() for _ in range(more)]:
            if more == 3:
                consume(organization, 9)
                record(organization, 5, "tokens")
        with django_assert_num_queries(7):
            answer = staff.get(url("organization-list"), page_size=500, **query).json()
        counts.append(answer["count"])
    assert counts[0] == 3
    if not query:
        assert counts[1] == 300


@pytest.mark.parametrize(("name", "count"), [("detail", 6), ("history", 7), ("events", 8), ("limits", 6)])
def test_one_organization_takes_the_same_queries_however_long_its_history(
    organization, manager, configure, django_assert_num_queries, name, count
):
    """However many meters, days and events there are."""
    configure(DEFAULT_LIMIT=None)
    for days in (3, 300):
        for day in range(days):
            record(organization, 1, now=NOW - (301 - day) * DAY if days == 300 else NOW)
        configure(METERS={f"meter-{number}": {} for number in range(days)})
        reset(organization)
        with django_assert_num_queries(count):
            answer = manager.get(url(name, organization), **({"last": 300} if name == "history" else {}))
        assert answer.status_code == 200


# -- history -----------------------------------------------------------------------------------------------------------


def test_the_history_of_a_meter(organization, member):
    """Oldest first, zero-filled, in the organization's time zone."""
    organization.usage_time_zone = "Europe/Berlin"
    organization.save()
    consume(organization, 2, now=NOW - 2 * DAY)
    consume(organization, 3, now=NOW)
    answer = member.get(url("history", organization), last=3)
    assert answer.json() == {
        "meter": "api",
        "bucket": "day",
        "time_zone": "Europe/Berlin",
        "points": [
            {"start": f"2026-03-{day:02}T00:00:00+01:00", "end": f"2026-03-{day + 1:02}T00:00:00+01:00",
             "used": used, "refused": 0}
            for day, used in ((8, 2), (9, 0), (10, 3))
        ],
    }  # fmt: skip


def points(answer):
    """Return day → used of an answer's points."""
    assert answer.status_code == 200, answer.content
    return {point["start"][:10]: point["used"] for point in answer.json()["points"]}


def test_thirty_days_are_the_default(organization, member):
    """They end with today."""
    days = list(points(member.get(url("history", organization))))
    assert (len(days), days[-1]) == (30, "2026-03-10")


@pytest.mark.parametrize(
    ("query", "first", "last", "count"),
    [
        ({"since": "2026-03-01", "until": "2026-03-08"}, "2026-03-01", "2026-03-07", 7),
        ({"since": "2026-03-01"}, "2026-03-01", "2026-03-10", 10),
        ({"until": "2026-03-01", "last": "5"}, "2026-02-24", "2026-02-28", 5),
        ({"since": "2026-03-01T12:00", "until": "2026-03-02T00:00:01"}, "2026-03-01", "2026-03-02", 2),
        ({"since": "2026-02-28T23:00:00Z", "until": "2026-03-01T23:00:00Z"}, "2026-03-01", "2026-03-01", 1),
        ({"since": "2026-03-01T00:00:00+01:00", "until": "2026-03-02T00:00:00+01:00"}, "2026-03-01", "2026-03-01", 1),
        ({"bucket": "week", "last": "2"}, "2026-03-02", "2026-03-09", 2),
        ({"bucket": "month", "since": "2026-01-15"}, "2026-01-01", "2026-03-01", 3),
    ],
)
def test_ranges(organization, member, query, first, last, count):
    """Dates are midnights in the organization's zone, the end is exclusive, points at the ends are whole."""
    update_limits(organization, time_zone="Europe/Berlin")
    days = list(points(member.get(url("history", organization), **query)))
    assert (days[0], days[-1], len(days)) == (first, last, count)


def test_hours_where_hours_are_stored(organization, member, configure):
    """Elsewhere they are a 400 that names the bucket."""
    assert member.get(url("history", organization), bucket="hour").status_code == 400
    configure(HISTORY_BUCKET="hour")
    answer = member.get(url("history", organization), bucket="hour", last=2).json()
    # At noon, which is not part of the range, no hour after it has begun.
    assert [point["start"] for point in answer["points"]] == ["2026-03-10T10:00:00Z", "2026-03-10T11:00:00Z"]


@pytest.mark.parametrize(
    "query", [{"meter": "tokens,api"}, {"meter": ["tokens", "api"]}, {"meter": ["tokens,api", "api"]}]
)
def test_the_history_of_several_meters(organization, member, query):
    """By meter, in the order asked for, over the same points."""
    consume(organization, 4)
    record(organization, 9, "tokens")
    answer = member.get(url("history", organization), last=2, **query).json()
    assert (answer["bucket"], answer["time_zone"]) == ("day", "UTC")
    assert {meter: [point["used"] for point in points] for meter, points in answer["meters"].items()} == {
        "tokens": [0, 9],
        "api": [0, 4],
    }
    assert list(answer["meters"]) == ["tokens", "api"]


# -- events ------------------------------------------------------------------------------------------------------------


def test_the_audit_trail(organization, manager):
    """The newest first, a page at a time: what, who, why, and the numbers."""
    consume(organization, 8, now=NOW)
    update_limits(organization, limits={"api": 20}, actor=manager.user, reason="goodwill", now=NOW + DAY)
    answer = manager.get(url("events", organization), page_size=1).json()
    assert answer["count"] == 2
    [event] = answer["results"]
    assert (event["kind"], event["actor"], event["reason"]) == ("limits_updated", str(manager.user), "goodwill")
    assert event["data"]["changes"] == {"limits": {"old": {}, "new": {"api": 20}}}
    assert (event["limit"], event["created_at"], event["threshold"]) == (20, "2026-03-11T12:00:00Z", None)
    [warning] = manager.client.get(answer["next"]).json()["results"]
    assert (warning["kind"], warning["threshold"], warning["actor"]) == ("warning", 80, "")


# -- how it is said ----------------------------------------------------------------------------------------------------


def test_problems_speak_the_callers_language(organization, member, settings):
    """Accept-Language decides, where the host has LocaleMiddleware; what programs read stays as it is."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    answer = member.client.get(url("history", organization), {"bucket": "x"}, headers={"Accept-Language": "de"})
    assert answer.json()["errors"]["bucket"] == ['"x" ist keine gültige Option.']
    assert answer.json()["type"] == "urn:usage-tracking:problem:invalid"
    translation.activate("en")


def test_a_browser_sees_pages(organization, manager):
    """The browsable API, with problems in it as well."""
    for name in ("detail", "history", "events", "limits"):
        answer = manager.client.get(url(name, organization), headers={"Accept": "text/html"})
        assert (answer.status_code, answer["Content-Type"]) == (200, "text/html; charset=utf-8")
    for target in (url("organization-list"), url("current")):
        assert manager.client.get(target, headers={"Accept": "text/html"}).status_code == 200
    answer = manager.client.get(url("reset", organization), headers={"Accept": "text/html"})
    assert (answer.status_code, answer["Content-Type"]) == (405, "text/html; charset=utf-8")
    answer = manager.client.get(url("detail", "nobody"), headers={"Accept": "text/html"})
    assert (answer.status_code, answer["Content-Type"]) == (404, "text/html; charset=utf-8")
    answer = manager.client.get(url("current"), headers={"Accept": "text/csv"})
    assert (answer.status_code, answer["Content-Type"]) == (406, "application/problem+json")
    assert json.loads(answer.content)["status"] == 406


def test_the_form_of_the_filters_asks_for_nothing_by_itself(member):
    """The browsable API's form has a blank choice for each filter, chosen unless one was asked for."""
    page = member.send("get", url("organization-list"), Accept="text/html").content.decode()
    for name in ("near_limit", "exceeded", "expired"):
        field = page.partition(f'<select name="{name}"')[2].partition("</select>")[0]
        assert '<option value="" selected>' in field
