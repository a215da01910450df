"""Lists of tables that grow without limit. No row is counted, and each page is one range of an index."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.http import HttpRequest

from conversations.admin.base import ReadOnlyAdmin

FURTHEST_PAGE = 200  # each page costs the ones before it; further back, users narrow the list down instead


class UncountedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator without a count. The list itself knows whether there is a next page."""

    template_name = "admin/long_list/pagination.html"
    count = 0


class LongChangeList(ChangeList):
    """One page of rows. One row more than is shown is read, to know whether there is a next page."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page and set the attributes that the template uses."""
        self.page_num = min(max(self.page_num, 1), FURTHEST_PAGE)
        self.paginator = UncountedPaginator([], self.list_per_page)
        start = (self.page_num - 1) * self.list_per_page
        rows = list(self.queryset[start : start + self.list_per_page + 1])
        self.has_next = len(rows) > self.list_per_page and self.page_num < FURTHEST_PAGE
        self.at_the_end = len(rows) > self.list_per_page and self.page_num == FURTHEST_PAGE
        self.result_list: Any = rows[: self.list_per_page]
        self.result_count = len(self.result_list)
        self.full_result_count = self.result_count  # the number of other rows is not shown
        self.show_full_result_count = self.show_admin_actions = True
        self.can_show_all, self.multi_page = False, True


class LongListAdmin(ReadOnlyAdmin):
    """The admin of a large table that only services write. The order is an index's and cannot be changed."""

    sortable_by = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the class of the list."""
        return LongChangeList
