"""The admin: a mixin for the host's organization admin, and read-only pages of periods, history and events.

State is changed through the engine, under its locks and with an audit event, never by a form of these tables.
"""

from usage_tracking.admin.organizations import UsageAdminMixin
from usage_tracking.admin.records import UsageEventAdmin, UsageHistoryAdmin, UsagePeriodAdmin

__all__ = ["UsageAdminMixin", "UsageEventAdmin", "UsageHistoryAdmin", "UsagePeriodAdmin"]
