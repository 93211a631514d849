"""Pages of our lists, whatever DEFAULT_PAGINATION_CLASS the host has."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request

__all__ = ["UsagePagination"]


class UsagePagination(PageNumberPagination):
    """`?page=` and `?page_size=`: whole numbers from 1, or an error that names the parameter."""

    page_size = 50
    max_page_size = 500
    page_query_param = "page"
    page_size_query_param = "page_size"
    page_size_query_description = _("Number of results per page, up to 500.")  # type: ignore[assignment]
    last_page_strings = ()

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        """Return one page. Raises ValidationError, and NotFound past the last page."""
        for name in (self.page_query_param, self.page_size_query_param):
            value = request.query_params.get(name, "1")
            if not (value.isascii() and value.isdigit() and value.strip("0")):
                raise ValidationError({name: [_("Must be a whole number from 1.")]})
        return super().paginate_queryset(queryset, request, view)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Return the parameters as OpenAPI has them."""
        parameters = super().get_schema_operation_parameters(view)
        for parameter in parameters:
            parameter["schema"]["minimum"] = 1
        return parameters
