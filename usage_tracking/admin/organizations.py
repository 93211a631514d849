"""The mixin for the admin of the host's organization: its usage, and what staff can do about it."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlencode

import django
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import flatten_fieldsets, quote, unquote
from django.core import checks
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from usage_tracking.admin.display import MeterShown, meters_shown, terms_shown
from usage_tracking.admin.filters import PlanFilter, ResetModeFilter, StateFilter
from usage_tracking.admin.forms import USAGE_FIELDS
from usage_tracking.admin.operations import OPERATIONS, Operation, Outcome
from usage_tracking.models import UsageEvent, UsageHistory, UsagePeriod, UsageTrackedOrganization

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = object

__all__ = ["UsageAdminMixin"]

OVERVIEW: Final = "usage_overview"
PANEL: Final = "usage_panel"
ACTIONS: Final = ("usage_limits_action", "usage_reset_action", "usage_refund_action", "usage_adjust_action")
FILTERS: Final = (StateFilter, PlanFilter, ResetModeFilter)

PREVIEWED: Final = 50
"""Of how many organizations a confirmation tells every step; of the others it tells the number."""

TOLD: Final = 10
"""How many outcomes are told one by one."""


class UsageAdminMixin(ModelAdmin):
    """Put it before the ModelAdmin of your organization (Django's own, or another's that derives from it).

    The list gets a column with each meter, filters and actions; the page of an organization gets its usage, the terms
    that hold and where they come from, and buttons. The usage fields leave the host's own form: they are changed on a
    page of ours, through `update_limits()`, with a reason. Whatever `list_display`, `list_filter`, `actions` and
    `fieldsets` the host has stay; name `usage_overview` or `usage_panel` there to choose their place.
    """

    usage_action_limit: ClassVar[int] = 1000
    """How many organizations one action takes at most: each is a transaction of its own, within one request."""

    def __init__(self, model: type[Any], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        if self.actions is not None:
            self.actions = [*self.actions, *(name for name in ACTIONS if name not in self.actions)]

    @property
    def media(self) -> forms.Media:
        """The stylesheet, whatever the host adds to it."""
        return super().media + forms.Media(css={"all": ["usage_tracking/admin.css"]})

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Name a setting of the host's admin that would lose what is entered."""
        editable = [field for field in self.list_editable if field in USAGE_FIELDS]
        errors: list[checks.CheckMessage] = [
            checks.Error(
                f"The value of 'list_editable' must not contain '{field}': it is changed with a reason.",
                hint="Remove it; the action 'Change plan and limits' changes many organizations at once.",
                obj=self.__class__,
                id="usage_tracking.E016",
            )
            for field in editable
        ]
        return [*super().check(**kwargs), *errors]

    # -- who may -------------------------------------------------------------------------------------------------------

    def has_view_usage_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Whether the user may see usage at all; override it to decide by organization, which may be None."""
        return bool(request.user.has_perm("usage_tracking.view_usage"))

    def has_reset_usage_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may reset, refund and adjust usage."""
        may_see = self.has_view_usage_permission(request, obj)
        return may_see and bool(request.user.has_perm("usage_tracking.reset_usage"))

    def has_change_limits_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may change plan, limits, features and calendar."""
        may_see = self.has_view_usage_permission(request, obj)
        return may_see and bool(request.user.has_perm("usage_tracking.change_limits"))

    def _may(self, request: HttpRequest, operation: Operation, obj: Any = None) -> bool:
        permitted: bool = getattr(self, f"has_{operation.permission}_permission")(request, obj)
        return permitted

    # -- the list ------------------------------------------------------------------------------------------------------

    def get_list_display(self, request: HttpRequest) -> Any:
        """Add the column of usage for those who may see it."""
        return _with_or_without(
            super().get_list_display(request), [OVERVIEW], may_see=self.has_view_usage_permission(request)
        )

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Add the filters by usage, plan and reset mode for those who may see usage."""
        return _with_or_without(
            super().get_list_filter(request), FILTERS, may_see=self.has_view_usage_permission(request)
        )

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Have the usage of the whole page read at once."""
        changelist = super().get_changelist_instance(request)
        if OVERVIEW in changelist.list_display:
            page = _Page(changelist.result_list)
            for organization in changelist.result_list:
                organization.usage_page = page
        return changelist

    @admin.display(description=gettext_lazy("usage"))
    def usage_overview(self, obj: Any) -> SafeString:
        """Each meter: a bar, the numbers, what they mean, and the last 30 days as a line."""
        page = getattr(obj, "usage_page", None) or _Page([obj])
        return render_to_string("usage_tracking/admin/overview.html", {"meters": page.meters.get(obj.pk, [])})

    # -- the page of one organization ----------------------------------------------------------------------------------

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> Any:
        """Leave the usage fields out of the host's form: a page of ours changes them."""
        excluded = super().get_exclude(request, obj)
        if excluded is None:  # Django asks the host's form in this case only
            excluded = getattr(getattr(self.form, "_meta", None), "exclude", None) or ()
        return [*excluded, *USAGE_FIELDS]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Show the panel beside what the host has read-only."""
        fields = [field for field in super().get_readonly_fields(request, obj) if field not in {*USAGE_FIELDS, PANEL}]
        return [*fields, PANEL] if self._shows_panel(request, obj) else fields

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Leave the panel to `get_fieldsets`."""
        return _without(super().get_fields(request, obj), {*USAGE_FIELDS, PANEL} if not self.fields else USAGE_FIELDS)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Add the panel below what the host shows, unless the host has given it a place."""
        shows_panel = self._shows_panel(request, obj)
        hidden = USAGE_FIELDS if shows_panel else (*USAGE_FIELDS, PANEL)
        fieldsets: list[Any] = [
            (name, {**options, "fields": fields})
            for name, options in super().get_fieldsets(request, obj)
            # A fieldset of usage fields only has nothing left.
            if (fields := _without(options["fields"], hidden)) or not options["fields"]
        ]
        if shows_panel and PANEL not in flatten_fieldsets(fieldsets):
            fieldsets.append((_("Usage"), {"fields": (PANEL,)}))
        return fieldsets

    def _shows_panel(self, request: HttpRequest, obj: Any) -> bool:
        return obj is not None and obj.pk is not None and self.has_view_usage_permission(request, obj)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Tell the panel who looks at it: not everybody gets every button."""
        if (obj := context.get("original")) is not None:
            obj.usage_request = request
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description=gettext_lazy("usage"))
    def usage_panel(self, obj: Any) -> SafeString:
        """Each meter with its period and history, the terms and their sources, and what the user may do."""
        request = getattr(obj, "usage_request", None)
        operations = [one for one in OPERATIONS if request is not None and self._may(request, one, obj)]
        entries = meters_shown([obj], now=timezone.now())[obj.pk]
        return render_to_string(
            "usage_tracking/admin/panel.html",
            {
                "meters": entries,
                # Terms can be told where usage can.
                "terms": terms_shown(obj) if entries else [],
                "operations": [(one, self._operation_url(obj, one)) for one in operations],
                "records": self._record_links(obj),
            },
        )

    def _operation_url(self, obj: Any, operation: Operation) -> str:
        return reverse(
            f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_usage",
            args=[quote(obj.pk), operation.name],
        )

    def _record_links(self, obj: Any) -> list[tuple[str, str]]:
        links = []
        for model in (UsagePeriod, UsageHistory, UsageEvent):
            if self.admin_site.is_registered(model):
                url = reverse(f"{self.admin_site.name}:usage_tracking_{model._meta.model_name}_changelist")
                links.append((str(model._meta.verbose_name_plural), f"{url}?{urlencode({'organization': obj.pk})}"))
        return links

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001 - Django's
        """Save what the host's form has changed, and no usage field: they may have changed since they were read."""
        if change:
            # Deferred, they are no part of the UPDATE; read again, they are as they are now.
            for field in USAGE_FIELDS:
                obj.__dict__.pop(field, None)
        super().save_model(request, obj, form, change)

    # -- operations ----------------------------------------------------------------------------------------------------

    @admin.action(
        description=gettext_lazy("Change plan and limits of selected %(verbose_name_plural)s"),
        permissions=["change_limits"],
    )
    def usage_limits_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Change plan, limits, features and calendar of all that are selected."""
        return self._act(request, queryset, "limits")

    @admin.action(
        description=gettext_lazy("Reset usage of selected %(verbose_name_plural)s"), permissions=["reset_usage"]
    )
    def usage_reset_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Close the open periods of all that are selected."""
        return self._act(request, queryset, "reset")

    @admin.action(
        description=gettext_lazy("Refund usage of selected %(verbose_name_plural)s"), permissions=["reset_usage"]
    )
    def usage_refund_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Give an amount back to each that is selected."""
        return self._act(request, queryset, "refund")

    @admin.action(
        description=gettext_lazy("Adjust usage of selected %(verbose_name_plural)s"), permissions=["reset_usage"]
    )
    def usage_adjust_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Set what each that is selected has used."""
        return self._act(request, queryset, "adjust")

    def get_urls(self) -> list[URLPattern]:
        """Add the pages of the operations on one organization."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_usage"
        view = self.admin_site.admin_view(self.usage_operation_view)
        return [path("<path:object_id>/usage/<slug:operation>/", view, name=name), *super().get_urls()]

    def usage_operation_view(self, request: HttpRequest, object_id: str, operation: str) -> HttpResponse:
        """Do something to one organization: a form, a confirmation, and back to its page."""
        named = next((one for one in OPERATIONS if one.name == operation), None)
        if named is None:
            raise Http404
        if not self._may(request, named):
            raise PermissionDenied
        organization = self.get_object(request, unquote(object_id))
        if organization is None:
            raise Http404
        if not (self.has_view_permission(request, organization) and self._may(request, named, organization)):
            raise PermissionDenied
        back = reverse(
            f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change", args=[quote(organization.pk)]
        )
        return self._operate(request, named, [organization], back=back)

    def _act(self, request: HttpRequest, queryset: QuerySet[Any], name: str) -> HttpResponse | None:
        operation = next(one for one in OPERATIONS if one.name == name)
        organizations = list(queryset[: self.usage_action_limit + 1])
        if len(organizations) > self.usage_action_limit:
            self.message_user(
                request,
                _("Select at most %(limit)s at once.") % {"limit": self.usage_action_limit},
                messages.ERROR,
            )
            return None
        if not organizations:
            return None
        carried = [
            ("action", f"usage_{name}_action"),
            ("select_across", request.POST.get("select_across", "0")),
            ("usage_count", str(len(organizations))),
            *((ACTION_CHECKBOX_NAME, key) for key in request.POST.getlist(ACTION_CHECKBOX_NAME)),
        ]
        return self._operate(request, operation, organizations, back=request.get_full_path(), carried=carried)

    def _operate(
        self,
        request: HttpRequest,
        operation: Operation,
        organizations: Sequence[UsageTrackedOrganization],
        *,
        back: str,
        carried: Iterable[tuple[str, str]] = (),
    ) -> HttpResponse:
        """Ask, tell what will happen, and do it: three answers of one address, by `usage_step`."""
        step = request.POST.get("usage_step", "")
        form = operation.form(organizations, request.POST if step else None)
        steps = None
        if step in {"review", "confirm"} and form.is_valid():
            is_as_told = request.POST.get("usage_count", str(len(organizations))) == str(len(organizations))
            if step == "confirm" and is_as_told:
                self._tell(request, [self._attempt(request, operation, one, form) for one in organizations])
                return HttpResponseRedirect(back)
            if not is_as_told:
                self.message_user(request, _("Other organizations match by now. Look again."), messages.WARNING)
            steps = list(operation.steps(organizations[:PREVIEWED], form))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            # Django 6.1 made the breadcrumbs a list.
            "breadcrumbs_are_list": django.VERSION >= (6, 1),
            "media": self.media,
            "title": operation.title,
            "operation": operation,
            "form": form,
            "count": len(organizations),
            "more": max(len(organizations) - PREVIEWED, 0),
            "now": [] if steps is not None else _now(organizations[:PREVIEWED]),
            "steps": steps,
            "is_review": steps is not None,
            "carried": list(carried),
            "back": back,
            "original": organizations[0] if len(organizations) == 1 else None,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "usage_tracking/admin/operation.html", context)

    def _attempt(self, request: HttpRequest, operation: Operation, organization: Any, form: Any) -> Outcome:
        if not self._may(request, operation, organization):
            return Outcome(organization=organization, text=_("you may not do this."), is_done=False)
        outcome = operation.attempt(organization, form, request.user)
        if outcome.is_done:
            self.log_change(request, organization, f"{outcome.text} ({form.cleaned_data['reason']})")
        return outcome

    def _tell(self, request: HttpRequest, outcomes: Sequence[Outcome]) -> None:
        for is_done, level in ((True, messages.SUCCESS), (False, messages.ERROR)):
            alike = [outcome for outcome in outcomes if outcome.is_done == is_done]
            for outcome in alike[:TOLD]:
                self.message_user(request, f"{outcome.organization}: {outcome.text}", level)
            if (more := len(alike) - TOLD) > 0:
                done = ngettext("Done for %(count)s more.", "Done for %(count)s more.", more)
                failed = ngettext("Failed for %(count)s more.", "Failed for %(count)s more.", more)
                self.message_user(request, (done if is_done else failed) % {"count": more}, level)


class _Page:
    """The usage of the organizations of one page, read when the first of them is shown."""

    def __init__(self, organizations: Iterable[UsageTrackedOrganization]) -> None:
        self.organizations = organizations

    @cached_property
    def meters(self) -> dict[Any, list[MeterShown]]:
        return meters_shown(list(self.organizations), now=timezone.now())


def _now(organizations: Sequence[UsageTrackedOrganization]) -> list[tuple[UsageTrackedOrganization, list[MeterShown]]]:
    shown = meters_shown(organizations, now=timezone.now())
    return [(organization, shown[organization.pk]) for organization in organizations]


def _with_or_without(given: Iterable[Any], ours: Sequence[Any], *, may_see: bool) -> list[Any]:
    """Return what the host names, with ours at the end unless the host has placed them; without for strangers."""
    if not may_see:
        return [item for item in given if item not in ours]
    given = list(given)
    return [*given, *(item for item in ours if item not in given)]


def _without(fields: Iterable[Any], hidden: Iterable[str]) -> list[Any]:
    """Return `fields`, lines of several included, without some."""
    kept: list[Any] = []
    for field in fields:
        if isinstance(field, list | tuple):
            if line := _without(field, hidden):
                kept.append(tuple(line))
        elif field not in hidden:
            kept.append(field)
    return kept
