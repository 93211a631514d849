"""Schemathesis sends what the schema allows, and what it does not, and compares the answers with the schema.

It takes about a minute, so it runs where schemathesis is installed: in one environment.
"""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest

schemathesis = pytest.importorskip("schemathesis", reason="`pip install schemathesis` to hold the API to its schema.")

from django.core.wsgi import get_wsgi_application  # noqa: E402 - not without schemathesis
from drf_spectacular.generators import SchemaGenerator  # noqa: E402

from tests.factories import MembershipFactory, OrganizationFactory, UserFactory  # noqa: E402
from usage_tracking.metering import consume  # noqa: E402

KEY = "the-key-of-a-machine"
CONFIG = schemathesis.Config.from_dict(
    {
        "seed": 20270101,
        "generation": {
            "max-examples": 50,
            "deterministic": True,
            "mode": "all",
            # We send valid credentials ourselves; the check of ignored ones leaves them out.
            "with-security-parameters": False,
            # No database stores it; test_bad_input.py sends it.
            "allow-x00": False,
        },
        # What no schema can say: that `since` is not after `until`, which years our calendars have, what a time zone is
        # called, and which ETag the limits have at the moment.
        "operations": [
            {
                "include-operation-id": ["usage_history", "usage_change_limits"],
                "checks": {"positive_data_acceptance": {"expected-statuses": [200, 400, 412]}},
            }
        ],
    }
)

PLACE = "the-organization"


def the_schema() -> Any:
    """Return the schema, as it is but for the ids: among all strings, the one that exists would never be found."""
    raw = json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True)))
    for item in raw["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "id":
                    parameter["schema"] = {"type": "string", "enum": [PLACE]}
    loaded = schemathesis.openapi.from_dict(raw, config=CONFIG)
    loaded.app = get_wsgi_application()
    return loaded


schema = the_schema()


@pytest.fixture
def key(transactional_db, configure, settings) -> str:
    """Return the key of an organization whose manager may do everything."""
    settings.ALLOWED_HOSTS = ["localhost"]
    configure(API_KEYS=[KEY], METERS={"tokens": {}}, PLANS={"free": {}, "pro": {}})
    user = UserFactory(username="root", is_superuser=True)
    organization = MembershipFactory(user=user, organization=OrganizationFactory()).organization
    consume(organization, 3)
    return str(organization.pk)


@schema.parametrize()
@hypothesis.settings(suppress_health_check=list(hypothesis.HealthCheck))
def test_the_api_does_what_its_schema_says(case: Any, key: str) -> None:
    """All checks, at least fifty examples for each operation, the same ones in every run."""
    if case.path_parameters.get("id") == PLACE:
        case.path_parameters["id"] = key
    machine = case.operation.path.endswith("reset-expired/")
    credentials = f"Bearer {KEY}" if machine else "Basic cm9vdDpwYXNzd29yZA=="  # root:password
    case.call_and_validate(headers={"Authorization": credentials})
