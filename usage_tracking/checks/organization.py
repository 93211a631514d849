"""The host's organization: its model, its hooks, and the tables that refer to it."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name for it
from django.db import connections, router
from django.db.migrations.loader import MigrationLoader

from usage_tracking.models import ORGANIZATION_SETTING, UsagePeriod, UsageTrackedOrganization, get_organization_model


def check_organization(**_: Any) -> Iterator[CheckMessage]:
    """The model inherits ours, with every field, and its hooks are asked."""
    model: Any = get_organization_model()
    name = model.__name__
    if not issubclass(model, UsageTrackedOrganization):
        yield Error(
            f"{name} does not inherit UsageTrackedOrganization.",
            hint=(
                f"Import it from usage_tracking.models, write `class {name}(UsageTrackedOrganization, …)` and run "
                f"makemigrations and migrate; or name another model in {ORGANIZATION_SETTING}."
            ),
            obj=model,
            id="usage_tracking.E004",
        )
        return
    fields = {field.name for field in model._meta.concrete_fields}
    if hidden := [field.name for field in UsageTrackedOrganization._meta.fields if field.name not in fields]:
        yield Error(
            f"{name} lacks fields of UsageTrackedOrganization: {', '.join(hidden)}.",
            hint="An attribute of that name, of the class or of a base that comes before, hides the field: rename it.",
            obj=model,
            id="usage_tracking.E005",
        )
    yield from _check_hook(
        model,
        "usage_visible_to",
        consequence="nobody sees its usage, and the default resolver counts no session caller",
        example="@classmethod def usage_visible_to(cls, user): return cls.objects.filter(members=user)",
        id="usage_tracking.W001",
    )
    yield from _check_hook(
        model,
        "usage_managed_by",
        consequence="nobody may change its limits or reset its usage through the API",
        example="def usage_managed_by(self, user): return user.is_staff",
        id="usage_tracking.W002",
    )


def _check_hook(model: type[Any], hook: str, *, consequence: str, example: str, id: str) -> Iterator[CheckMessage]:  # noqa: A002 - as Django calls it
    name = model.__name__
    asked, *hidden = [base for base in model.__mro__ if hook in vars(base)]
    if asked is not UsageTrackedOrganization:
        if hook == "usage_visible_to" and not isinstance(vars(asked)[hook], classmethod | staticmethod):
            yield Error(
                f"{asked.__name__}.{hook} is not a classmethod.",
                hint=f"It is asked for a user, before there is an organization: {example}",
                obj=model,
                id="usage_tracking.E006",
            )
    elif hidden:
        other = hidden[0].__name__
        yield Warning(
            f"{other}.{hook} is never asked, as UsageTrackedOrganization comes before {other} in the bases of {name}: "
            f"{consequence}.",
            hint=f"Write `class {name}({other}, UsageTrackedOrganization, …)`.",
            obj=model,
            id="usage_tracking.W003",
        )
    else:
        yield Warning(
            f"{name} does not override {hook}: {consequence}.",
            hint=f"For example: {example}",
            obj=model,
            id=id,
        )


def check_organization_unchanged(*, databases: Sequence[str] | None = None, **_: Any) -> Iterator[CheckMessage]:
    """The tables refer to the organization that the setting names."""
    model = get_organization_model()
    table, column = UsagePeriod._meta.db_table, UsagePeriod._meta.get_field("organization").column
    for alias in databases or ():
        if not router.allow_migrate_model(alias, UsagePeriod):
            continue
        connection = connections[alias]
        with connection.cursor() as cursor:
            # Where one is missing, or not renamed yet, `migrate` has still to come.
            if not {table, model._meta.db_table} <= set(connection.introspection.table_names(cursor)):
                continue
            relations = connection.introspection.get_relations(cursor, table)
        target = relations[column][1] if column in relations else model._meta.db_table
        if target != model._meta.db_table:
            yield Error(
                f"{ORGANIZATION_SETTING} is {model._meta.label!r}, whose table is {model._meta.db_table!r}; but in the "
                f"database {alias!r} usage belongs to the rows of {target!r}.",
                hint=(
                    "The setting was changed after usage_tracking was migrated. Set it back; or write a migration that "
                    "leads the foreign keys to the new table, and run `migrate --skip-checks`."
                ),
                id="usage_tracking.E014",
            )


def check_organization_migrated(*, databases: Sequence[str] | None = None, **_: Any) -> Iterator[CheckMessage]:
    """The host's migrations make the columns of the fields that its organization inherits."""
    model: Any = get_organization_model()
    # Loading all migrations takes a while, and `migrate` is about to do it anyway.
    if not databases or not issubclass(model, UsageTrackedOrganization):
        return
    loader = MigrationLoader(None)
    migrated = loader.project_state().models
    inherited = {field.name for field in UsageTrackedOrganization._meta.fields}
    without = [
        field
        for field in model._meta.concrete_fields
        if field.name in inherited
        and field.model._meta.app_label in loader.migrated_apps
        and field.name
        not in getattr(migrated.get((field.model._meta.app_label, field.model._meta.model_name)), "fields", ())
    ]
    if without:
        app = without[0].model._meta.app_label
        yield Warning(
            f"No migration of {app} gives {model.__name__} its usage fields: "
            f"{', '.join(field.name for field in without)}.",
            hint=f"Run `manage.py makemigrations {app}`, then `manage.py migrate`.",
            obj=model,
            id="usage_tracking.W009",
        )
