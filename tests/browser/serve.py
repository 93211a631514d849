"""The site that browser tests look at: `python -m tests.browser.serve` prints a line of JSON about it and serves it.

The line has its URL and, by username, the key of a session that is logged in and that of the user's organization.
"""

import json
import os
from datetime import timedelta
from zoneinfo import ZoneInfo

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.browser.settings"
django.setup()

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.test import Client
from django.utils import timezone

from accounts.models import Membership, Organization
from usage_tracking.metering import adjust, record

# Who works where, and the terms there.
ORGANIZATIONS = {
    "bob": ("Bolt Robotics", {"usage_plan": "pro", "usage_time_zone": "Europe/Berlin"}),
    "ada": ("Amber Bakery", {"usage_plan": "free"}),
    "rita": ("Reset Ltd", {"usage_plan": "free"}),
    "olga": ("Outage Inc", {"usage_plan": "free"}),
    "sam": ("Signed Out Co", {"usage_plan": "free"}),
    "eve": ("Ember Energy", {"usage_plan": "pro", "usage_limits": {"api": 150}, "usage_enforcement": "soft"}),
    "carol": ("Cobalt Labs", {"usage_plan": "enterprise"}),
    "zoe": ("Zero GmbH", {"usage_plan": "free", "usage_limits": {"api": 0, "tokens": 0}}),
    "dora": ("Delta Freight", {"usage_plan": "free"}),
    "max": ("M" * 64, {"usage_limits": {"api": 2**53 - 1}, "usage_features": {"f" * 64: 2**53 - 1}}),
}
USED = {"ada": 79, "rita": 95, "olga": 10, "sam": 10, "eve": 175, "carol": 8_236, "dora": 50, "max": 2**53 - 1}


class QuietHandler(WSGIRequestHandler):
    """Says nothing about requests."""

    def log_message(self, format, *args):  # noqa: A002 - as the base class calls it
        """Say nothing."""


def seed():
    """Make the organizations; Bolt Robotics has a past."""
    now = timezone.now()
    for username, (name, terms) in ORGANIZATIONS.items():
        user = User.objects.create_user(username)
        organization = Organization.objects.create(name=name, slug=username, **terms)
        Membership.objects.create(user=user, organization=organization)
        if username == "bob":
            live(organization, now)
        elif username in USED:
            adjust(organization, used=USED[username])
    Membership.objects.create(user=User.objects.get(username="dora"), organization=Organization.objects.get(slug="zoe"))
    User.objects.create_superuser("admin", password="admin")


def live(organization, now):
    """Let the organization live through 90 days, of which the open period has used 842."""
    days = [now - timedelta(days=day) for day in range(89, -1, -1)]
    weights = [(30 if day.weekday() >= 5 else 60) + day.toordinal() * 7 % 29 for day in days]
    zone = ZoneInfo(organization.usage_time_zone)
    first = now.astimezone(zone).replace(day=1, hour=0, minute=0)
    of_this_month = sum(weight for day, weight in zip(days, weights, strict=True) if day >= first)
    for day, weight in zip(days, weights, strict=True):
        record(organization, weight * 842 // max(of_this_month, 842) + 1, now=day)
        record(organization, weight * 20, meter="tokens", now=day)
    adjust(organization, used=842)


def session_of(user):
    """Return what the browser of a user that is logged in has."""
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def main():
    """Set the site up and serve it."""
    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)
    seed()
    # After collectstatic, whose files it reads once.
    server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
    server.set_app(get_wsgi_application())
    users = {
        user.username: {
            "session": session_of(user),
            "organization": Organization.objects.filter(members=user).values_list("pk", flat=True).first(),
        }
        for user in User.objects.all()
    }
    print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}", "users": users}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
