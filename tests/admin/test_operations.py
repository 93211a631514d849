"""Reset, refund, adjust, change: asked, told, confirmed, done, and kept in the audit trail."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.utils import timezone

from tests.admin.forms import filled
from tests.factories import Organization, OrganizationFactory
from tests.host_admin import OrganizationAdmin
from usage_tracking.entitlements import update_limits
from usage_tracking.metering import adjust, record, usage_of
from usage_tracking.models import UsageEvent
from usage_tracking.resets import reset


def told(response):
    """The messages of a response."""
    return [str(message) for message in get_messages(response.wsgi_request)]


CASES = [
    ("reset", {"meters": ["api"]}, 0, "reset", "API requests reset."),
    ("refund", {"amount": 3}, 4, "refunded", "3 of API requests refunded."),
    ("refund", {"amount": 30}, 0, "refunded", "7 of API requests refunded."),
    ("adjust", {"used": 5}, 5, "adjusted", "API requests adjusted to 5."),
]


@pytest.mark.parametrize(("name", "changes", "used", "kind", "words"), CASES)
def test_one_organization(operator, pages, organization, name, changes, used, kind, words):
    """From its page: a form, what will happen, and only then it happens, once, with actor and reason."""
    record(organization, 7)
    url = pages.operation(organization, name)
    assert url in operator.get(pages.change(organization)).content.decode()
    assert operator.get(url).status_code == 200
    data = filled(name, organization, **changes)
    review = operator.post(url, {**data, "usage_step": "review"})
    [step] = review.context["steps"]
    assert [(told.text, told.is_number) for told in step.told] == [("7", True), (str(used), True)]
    assert (usage_of(organization).used, UsageEvent.objects.filter(kind=kind).count()) == (7, 0)
    done = operator.post(url, {**data, "usage_step": "confirm"})
    assert (done.status_code, done.url) == (302, pages.change(organization))
    assert told(done) == [f"{organization}: {words}"]
    assert usage_of(organization).used == used
    event = UsageEvent.objects.get(kind=kind)
    actor = done.wsgi_request.user
    assert (event.actor, event.actor_label, event.reason) == (actor, str(actor), "They asked for it.")
    assert LogEntry.objects.get().object_id == str(organization.pk)


@pytest.mark.parametrize(("name", "changes", "used", "kind", "words"), CASES)
def test_many_organizations(operator, pages, name, changes, used, kind, words):
    """From the list: the same, for all that are selected and no other."""
    chosen, other = [OrganizationFactory() for _ in range(3)], OrganizationFactory()
    for organization in (*chosen, other):
        record(organization, 7)
    data = filled(name, *chosen, **changes) | {
        "action": f"usage_{name}_action",
        "_selected_action": [str(organization.pk) for organization in chosen],
    }
    asked = operator.post(pages.list, {"action": data["action"], "_selected_action": data["_selected_action"]})
    assert {one for one, _meters in asked.context["now"]} == set(chosen)
    review = operator.post(pages.list, {**data, "usage_step": "review"})
    assert {step.organization for step in review.context["steps"]} == set(chosen)
    done = operator.post(f"{pages.list}?plan=free", {**data, "usage_step": "confirm"})
    assert done.url == f"{pages.list}?plan=free"
    assert set(told(done)) == {f"{organization}: {words}" for organization in chosen}
    assert [usage_of(organization).used for organization in chosen] == [used] * 3
    assert usage_of(other).used == 7
    assert UsageEvent.objects.filter(kind=kind).count() == 3


@pytest.mark.parametrize(("amount", "what"), [(7, "API requests"), (30, "API requests, of which 7 come back")])
def test_a_refund_of_more_than_was_used_says_so_beforehand(operator, pages, organization, amount, what):
    """What was never used cannot come back: the confirmation says how much will."""
    record(organization, 7)
    data = filled("refund", organization, amount=amount)
    review = operator.post(pages.operation(organization, "refund"), {**data, "usage_step": "review"})
    assert [step.what for step in review.context["steps"]] == [what]


def test_all_that_a_filter_finds(operator, pages):
    """Selecting all takes what the filter finds, on every page of it."""
    chosen = [OrganizationFactory(usage_plan="pro") for _ in range(3)]
    OrganizationFactory()
    data = filled("limits", *chosen, plan="free") | {"action": "usage_limits_action", "select_across": "1"}
    data |= {"_selected_action": [str(chosen[0].pk)], "usage_step": "review"}
    review = operator.post(f"{pages.list}?plan=pro", data)
    assert review.context["count"] == 3
    carried = dict(review.context["carried"])
    assert carried["usage_count"] == "3"
    # Meanwhile one more matches: whoever confirms has not been told about it.
    OrganizationFactory(usage_plan="pro")
    late = operator.post(f"{pages.list}?plan=pro", {**data, "usage_count": "3", "usage_step": "confirm"})
    assert late.context["is_review"]
    assert told(late) == ["Other organizations match by now. Look again."]
    operator.post(f"{pages.list}?plan=pro", {**data, "usage_count": "4", "usage_step": "confirm"})
    assert not Organization.objects.filter(usage_plan="pro").exists()


def test_what_fails_for_one_is_done_for_the_others(operator, pages, monkeypatch, caplog):
    """Each outcome is told; a failure names its organization, and the log has what it was."""
    broken, gone, sound = (OrganizationFactory(name=name) for name in ("Broken", "Gone", "Sound"))
    for organization in (broken, gone, sound):
        record(organization, 7)

    def unreliable(organization, meter, **arguments):
        if organization == broken:
            raise RuntimeError("the disk is full")
        if organization == gone:
            Organization.objects.filter(pk=gone.pk).get().delete()
        return reset(organization, meter, **arguments)

    monkeypatch.setattr("usage_tracking.admin.operations.reset", unreliable)
    data = filled("reset", broken, gone, sound) | {"action": "usage_reset_action", "usage_step": "confirm"}
    data["_selected_action"] = [str(one.pk) for one in (broken, gone, sound)]
    done = operator.post(pages.list, data)
    messages = told(done)
    assert "Broken: something went wrong; the log says what." in messages
    assert "Sound: API requests, Tokens reset." in messages
    assert any(message.startswith("Gone: ") and "was deleted" in message for message in messages)
    assert usage_of(sound).used == 0
    assert usage_of(broken).used == 7
    assert "the disk is full" in caplog.text


def test_many_outcomes_are_summed_up(operator, pages):
    """Ten are told one by one, the others by their number."""
    crowd = [OrganizationFactory() for _ in range(13)]
    data = filled("reset", *crowd) | {"action": "usage_reset_action", "usage_step": "confirm"}
    done = operator.post(pages.list, {**data, "_selected_action": [str(one.pk) for one in crowd]})
    assert len(told(done)) == 11
    assert told(done)[-1] == "Done for 3 more."


def test_too_many_at_once_are_refused(operator, pages, monkeypatch):
    """More than one request can do is said, and nothing is done."""
    monkeypatch.setattr(OrganizationAdmin, "usage_action_limit", 2)
    crowd = [OrganizationFactory() for _ in range(3)]
    for organization in crowd:
        record(organization, 7)
    data = filled("reset", *crowd) | {"action": "usage_reset_action", "usage_step": "confirm"}
    done = operator.post(pages.list, {**data, "_selected_action": [str(one.pk) for one in crowd]})
    assert told(done) == ["Select at most 2 at once."]
    assert [usage_of(organization).used for organization in crowd] == [7, 7, 7]


def test_back_shows_what_was_entered(operator, pages, organization):
    """Who has second thoughts finds the form as it was filled in."""
    data = filled("adjust", organization, used="5", reason="Second thoughts.")
    page = operator.post(pages.operation(organization, "adjust"), {**data, "usage_step": "edit"})
    assert not page.context["is_review"]
    assert "Second thoughts." in page.content.decode()


# -- plan, limits, features --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entered", "field", "stored"),
    [
        ({"plan": "pro"}, "plan", "pro"),
        ({"limit-api": "own", "number-api": "5000"}, "limits", {"api": 5000}),
        ({"limit-tokens": "unlimited"}, "limits", {"tokens": None}),
        ({"limit-api": "own", "number-api": "0"}, "limits", {"api": 0}),
        ({"feature-export": "yes"}, "features", {"export": True}),
        ({"feature-export": "no"}, "features", {"export": False}),
        ({"feature-seats": "own", "value-seats": "7"}, "features", {"seats": 7}),
        ({"feature-seats": "own", "value-seats": "7.5"}, "features", {"seats": 7.5}),
        ({"feature-support": "own", "value-support": "phone"}, "features", {"support": "phone"}),
        ({"reset_mode": "manual"}, "reset_mode", "manual"),
        ({"reset_period": "daily"}, "reset_period", "daily"),
        ({"anchor": "2026-01-15"}, "anchor", "2026-01-15"),
        ({"time_zone": "Europe/Berlin"}, "time_zone", "Europe/Berlin"),
        ({"enforcement": "soft"}, "enforcement", "soft"),
    ],
)
def test_each_term_has_a_real_field(operator, pages, organization, entered, field, stored):
    """What is entered is written through `update_limits`: one event, with old, new, actor and reason."""
    url = pages.operation(organization, "limits")
    data = filled("limits", organization, **entered)
    review = operator.post(url, {**data, "usage_step": "review"})
    assert review.context["steps"], review.context["form"].errors
    assert operator.post(url, {**data, "usage_step": "confirm"}).status_code == 302
    organization.refresh_from_db()
    assert repr(getattr(organization, f"usage_{field}")) == repr(stored)
    event = UsageEvent.objects.get(kind="limits_updated")
    assert set(event.data["changes"]) == {field}
    assert event.data["changes"][field]["new"] == stored
    assert event.reason == "They asked for it."
    assert event.actor is not None


def test_inherit_drops_the_override(operator, pages, organization):
    """Of a limit and a feature, and of nothing else."""
    update_limits(organization, limits={"api": 5, "tokens": 6}, features={"export": True, "seats": 9})
    data = filled("limits", organization)
    assert (data["limit-api"], data["number-api"], data["feature-export"], data["value-seats"]) == ("own", 5, "yes", 9)
    url = pages.operation(organization, "limits")
    operator.post(url, {**data, "limit-api": "inherit", "feature-export": "inherit", "usage_step": "confirm"})
    organization.refresh_from_db()
    assert (organization.usage_limits, organization.usage_features) == ({"tokens": 6}, {"seats": 9})


def test_the_form_says_what_inherit_means(operator, pages, organization):
    """Under the organization's plan, not under its overrides."""
    update_limits(organization, plan="pro", limits={"api": 5})
    content = operator.get(pages.operation(organization, "limits")).content.decode()
    assert "inherit (5,000)" in content
    assert "inherit (e-mail)" in content


def test_only_what_was_entered_is_changed_on_many(operator, pages):
    """Each keeps what the form leaves as it is."""
    first = OrganizationFactory(usage_limits={"api": 1, "tokens": 2}, usage_anchor="2026-01-15")
    second = OrganizationFactory(usage_features={"export": True}, usage_enforcement="soft")
    data = filled("limits", first, second, plan="pro", **{"limit-api": "own", "number-api": "9"})
    data |= {"action": "usage_limits_action", "_selected_action": [str(first.pk), str(second.pk)]}
    operator.post(pages.list, {**data, "usage_step": "confirm"})
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.usage_limits, first.usage_anchor, first.usage_plan) == ({"api": 9, "tokens": 2}, "2026-01-15", "pro")
    assert (second.usage_limits, second.usage_features) == ({"api": 9}, {"export": True})
    assert (second.usage_enforcement, second.usage_plan) == ("soft", "pro")


def test_nobody_overwrites_another_unseen(operator, pages, organization):
    """A form that was opened before somebody else's change is shown again, and the second look counts."""
    data = filled("limits", organization, enforcement="soft")
    update_limits(organization, limits={"api": 77})
    url = pages.operation(organization, "limits")
    page = operator.post(url, {**data, "usage_step": "confirm"})
    assert "Somebody else has changed these terms" in page.content.decode()
    organization.refresh_from_db()
    assert (organization.usage_limits, organization.usage_enforcement) == ({"api": 77}, "")
    again = {**data, "version": page.context["form"]["version"].value(), "limit-api": "own", "number-api": "77"}
    operator.post(url, {**again, "usage_step": "confirm"})
    organization.refresh_from_db()
    assert (organization.usage_limits, organization.usage_enforcement) == ({"api": 77}, "soft")


def test_a_plan_that_is_gone_can_stay(operator, pages, organization):
    """What PLANS has lost is shown and kept while something else is changed."""
    Organization.objects.filter(pk=organization.pk).update(usage_plan="gold")
    organization.refresh_from_db()
    url = pages.operation(organization, "limits")
    assert "gold (unknown)" in operator.get(url).content.decode()
    operator.post(url, {**filled("limits", organization, enforcement="soft"), "usage_step": "confirm"})
    organization.refresh_from_db()
    assert (organization.usage_plan, organization.usage_enforcement) == ("gold", "soft")


def test_a_lowered_limit_holds_at_once(operator, pages, organization):
    """The open period follows in the same transaction."""
    record(organization, 7)
    data = filled("limits", organization, **{"limit-api": "own", "number-api": "5"})
    operator.post(pages.operation(organization, "limits"), {**data, "usage_step": "confirm"})
    usage = usage_of(organization)
    assert (usage.limit, usage.used, usage.overage) == (5, 7, 2)


def test_an_adjustment_announces_what_it_reaches(operator, pages, organization):
    """Corrections go through the engine, thresholds included."""
    adjust(organization, used=0)
    data = filled("adjust", organization, used=9)
    operator.post(pages.operation(organization, "adjust"), {**data, "usage_step": "confirm"})
    assert UsageEvent.objects.filter(kind="warning", created_at__lte=timezone.now()).count() == 1
