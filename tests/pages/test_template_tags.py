"""`{% load usage_tracking %}` in a host's templates."""

import logging
import re

import pytest
from django.contrib.auth.models import AnonymousUser, Permission
from django.db import DatabaseError
from django.template import Context, Template
from django.test import RequestFactory
from django.utils import translation

from tests.factories import MembershipFactory, OrganizationFactory, UserFactory
from usage_tracking.entitlements import update_limits
from usage_tracking.exceptions import InvalidInput
from usage_tracking.metering import consume, record
from usage_tracking.models import UsagePeriod

TAGS = {
    "card": "{% usage_card organization %}",
    "features": "{% feature_access_card organization %}",
    "chart": "{% usage_history_chart organization %}",
    "dashboard": "{% usage_dashboard organization %}",
}
each_tag = pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)


def drawn(tag, organization, user=None, **context):
    """Return what a tag draws; for a user, in the page of a request of theirs."""
    if user is not None:
        context["request"] = RequestFactory().get("/")
        context["request"].user = user
    return (
        Template("{% load usage_tracking %}" + tag).render(Context({"organization": organization, **context})).strip()
    )


@each_tag
def test_a_member_sees_it(organization, tag):
    """In a page of theirs, and where there is no request: in a mail, say."""
    member = MembershipFactory(organization=organization).user
    assert "ut-card" in drawn(tag, organization, member)
    assert "ut-card" in drawn(tag, organization)


@each_tag
def test_strangers_see_nothing(organization, tag):
    """Nor does who is not logged in, nor a request that knows no user; and it is no error."""
    consume(organization)
    stranger = MembershipFactory(organization=OrganizationFactory()).user
    assert drawn(tag, organization, stranger) == ""
    assert drawn(tag, organization, AnonymousUser()) == ""
    assert drawn(tag, organization, request=RequestFactory().get("/")) == ""


@each_tag
def test_staff_with_the_permission_see_it(organization, tag):
    """`view_usage` shows every organization."""
    staff = UserFactory(is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_usage"))
    assert "ut-card" in drawn(tag, organization, staff)


@each_tag
@pytest.mark.parametrize("nobody", [None, "", 7])
def test_nobody_has_nothing(db, tag, nobody):
    """A page without an organization is a page without cards."""
    assert drawn(tag, nobody) == ""
    assert drawn(tag, OrganizationFactory.build()) == ""


@each_tag
def test_what_cannot_be_looked_up_is_said_and_logged(organization, tag, monkeypatch, caplog):
    """The page is whole, whatever fails in there."""

    def fail(*args, **kwargs):
        raise DatabaseError

    for name in ("usage_cards", "features_of", "history_charts"):
        monkeypatch.setattr(f"usage_tracking.templatetags.usage_tracking.{name}", fail)
    assert "Usage cannot be shown right now." in drawn(tag, organization)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    "tag",
    [
        '{% usage_card organization meter="tokns" %}',
        '{% usage_history_chart organization time_range="31d" %}',
        '{% usage_history_chart organization chart_type="pie" %}',
        '{% usage_dashboard organization meters="api tokns" %}',
    ],
)
def test_wrong_arguments_are_errors(organization, tag):
    """It is the template that is wrong, and whoever writes it should know."""
    with pytest.raises(InvalidInput):
        drawn(tag, organization)


def test_the_card_has_what_a_screen_reader_needs(organization):
    """The bar is an image with a text, icons are hidden, and the level is said in words."""
    record(organization, 950)
    html = drawn("{% usage_card organization %}", organization)
    assert 'role="img" aria-label="950 of 1,000 requests, 95%"' in html
    assert "Almost used up" in html
    assert 'data-level="critical"' in html


def test_who_is_near_the_limit_may_upgrade(organization):
    """The link is there once there is a reason, and its address is escaped."""
    tag = "{% usage_card organization upgrade_url=url %}"
    url = "/upgrade/?a=1&b=2"
    assert "Upgrade" not in drawn(tag, organization, url=url)
    record(organization, 800)
    assert 'href="/upgrade/?a=1&amp;b=2">Upgrade</a>' in drawn(tag, organization, url=url)
    update_limits(organization, limits={"api": None})
    assert "Upgrade" not in drawn(tag, organization, url=url)


def test_what_the_plan_lacks_may_be_upgraded_to(organization):
    """A limit of 0 is used up from the start."""
    update_limits(organization, limits={"api": 0})
    assert "Upgrade" in drawn("{% usage_card organization upgrade_url='/upgrade/' %}", organization)


def test_labels_of_features_come_from_the_template(organization, configure):
    """A dict of the context names them."""
    configure(PLANS={"free": {"features": {"sso": True}}})
    html = drawn("{% feature_access_card organization labels=labels %}", organization, labels={"sso": "Sign <on>"})
    assert "Sign &lt;on&gt;" in html


def test_what_a_host_names_is_escaped(organization, configure):
    """Labels, units, plans and features are text."""
    evil = "<script>"
    configure(
        METERS={"api": {"label": evil, "unit": evil}},
        PLANS={evil: {"features": {evil: evil}}},
        DEFAULT_PLAN=evil,
    )
    record(organization, 5)
    html = drawn("{% usage_dashboard organization %}", organization)
    assert evil not in html
    assert html.count("&lt;script&gt;") >= 6


@pytest.mark.parametrize("chart_type", ["line", "bar", "area"])
def test_drawings_know_no_decimal_comma(organization, chart_type, settings):
    """Whatever the language and its separators: SVG has its own."""
    settings.USE_THOUSAND_SEPARATOR = True
    record(organization, 12345)
    tag = f'{{% usage_history_chart organization chart_type="{chart_type}" %}}{{% usage_card organization %}}'
    plain = drawn(tag, organization)
    with translation.override("de"):
        german = drawn(tag, organization)
    assert "12.345" in german

    def geometry(html):
        return re.findall(r'(?:x|y|x1|x2|y1|y2|cx|cy|width|height|d|viewBox)="([^"]*)"', html)

    assert geometry(plain) == geometry(german)
    assert "," not in "".join(geometry(german))


@each_tag
def test_nothing_is_styled_inline(organization, tag):
    """`default-src 'self'` holds: no style, no script, no handler."""
    record(organization, 1200)
    html = drawn(tag, organization)
    assert not any(forbidden in html for forbidden in ("style=", "<style", "<script", "onclick", "javascript:"))


def test_some_meters_of_a_dashboard(organization, configure):
    """Separated by commas or spaces, in that order."""
    configure(METERS={"api": {"label": "AAA"}, "tokens": {"label": "TTT"}, "mails": {"label": "MMM"}})
    html = drawn('{% usage_dashboard organization meters="mails, tokens" %}', organization)
    assert "AAA" not in html
    assert html.index("MMM") < html.index("TTT")


@pytest.mark.parametrize(
    ("tag", "queries"),
    [
        ("{% usage_card organization %}", 1),
        ("{% feature_access_card organization %}", 0),
        ('{% usage_history_chart organization time_range="90d" %}', 2),
        ('{% usage_history_chart organization time_range="all" %}', 3),
        ("{% usage_dashboard organization %}", 3),
    ],
)
@pytest.mark.parametrize("meters", [3, 30])
def test_the_number_of_queries_is_fixed(organization, configure, django_assert_num_queries, tag, queries, meters):
    """Whatever the number of meters and days; a page's request adds one, which asks who may see it."""
    configure(METERS={f"meter{number}": {} for number in range(meters)})
    member = MembershipFactory(organization=organization).user
    record(organization, 5)
    with django_assert_num_queries(queries):
        drawn(tag, organization)
    member.get_all_permissions()
    with django_assert_num_queries(queries + 1):
        drawn(tag, organization, member)


def test_drawing_writes_nothing(organization):
    """Looking at usage does not begin a period."""
    drawn("{% usage_dashboard organization %}", organization)
    assert not UsagePeriod.objects.exists()
