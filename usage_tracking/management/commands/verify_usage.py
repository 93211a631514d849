"""`manage.py verify_usage`."""

from collections import Counter
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usage_tracking.management.base import UNFINISHED, UsageCommand
from usage_tracking.models import get_organization_model
from usage_tracking.verification import REASON, Finding, Problem, verify_usage

EXPLANATIONS: Final[dict[Problem, Promise]] = {
    Problem.DRIFT: gettext_lazy("it says %(stored)s, its history says %(expected)s"),
    Problem.NEGATIVE: gettext_lazy("a number of it or of its history is negative"),
    Problem.STRAY: gettext_lazy("history outside of it"),
    Problem.OVERLAP: gettext_lazy("the next period begins before it ends"),
    Problem.GAP: gettext_lazy("the period that was opened when it was closed is missing"),
    Problem.NOT_OPEN: gettext_lazy("it is the last one and not open"),
    Problem.UNTOLD: gettext_lazy("it was closed without a reset event"),
    Problem.MISLENT: gettext_lazy("it says that %(stored)s are on lease, its leases say %(expected)s"),
}


class Command(UsageCommand):
    """Prints what `verify_usage()` finds."""

    help = gettext_lazy(
        "Recompute every usage period from its history and tell what differs; exit code 3 if something is left."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whose, of what, and whether to mend it."""
        self.add_organization_option(parser)
        parser.add_argument("--meter", metavar="NAME", help=_("only this meter (default: all)"))
        parser.add_argument("--repair", action="store_true", help=_("set drifted periods to what their history says"))
        parser.add_argument("--reason", help=_("why, for the audit event of a repair"))
        self.add_database_option(parser)

    def handle(
        self,
        *,
        organization: list[str] | None = None,
        meter: str | None = None,
        repair: bool = False,
        reason: str | None = None,
        database: str | None = None,
        verbosity: int,
        **_options: Any,
    ) -> None:
        """Do it, print each finding, and say how many there were."""
        if reason is not None and not repair:
            raise CommandError(_("--reason is for the event of a repair: add --repair."))
        organizations = self.organizations(organization)
        everybody = get_organization_model()._base_manager.all()
        total = (everybody if organizations is None else organizations).count()
        counts: Counter[bool] = Counter()
        with self.progress(verbosity, _("organizations"), total) as progress:
            for finding in verify_usage(
                organizations,
                meter=meter,
                repair=repair,
                reason=REASON if reason is None else reason,
                using=self.database(database),
                progress=progress,
            ):
                counts[finding.repaired] += 1
                self.say(verbosity, _line(finding))
        self.say(
            verbosity,
            _("Organizations: %(total)d. Findings: %(found)d, repaired: %(repaired)d.")
            % {"total": total, "found": counts.total(), "repaired": counts[True]},
        )
        if counts[False]:
            message = _("Findings that were not repaired: %(count)d.") % {"count": counts[False]}
            raise CommandError(message, returncode=UNFINISHED)


def _line(finding: Finding) -> str:
    explanation = str(EXPLANATIONS[finding.problem]) % {"stored": finding.stored, "expected": finding.expected}
    line = _("%(problem)s: organization %(organization)s, %(meter)s since %(start)s (period %(period)s): %(text)s") % {
        "problem": finding.problem,
        "organization": finding.organization_id,
        "meter": finding.meter,
        "start": finding.start.isoformat(),
        "period": finding.period_id,
        "text": explanation,
    }
    repaired = _("(repaired)")
    return f"{line} {repaired}" if finding.repaired else line
