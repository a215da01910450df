"""Lists of tables that grow without end: nothing is counted, and a page is one look into an index."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.http import HttpRequest

from conversations.admin.base import ReadOnlyPage

FURTHEST_PAGE = 200  # further back one narrows the list down instead: each page costs the ones before it


class UncountedPaginator(Paginator):  # type: ignore[type-arg]
    """Knows no count; the list itself knows whether there is a next page."""

    template_name = "admin/conversations/pages.html"
    count = 0


class LongChangeList(ChangeList):
    """One page of rows, and whether there is another, by asking for one row more than is shown."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the page."""
        self.page_num = min(max(self.page_num, 1), FURTHEST_PAGE)
        self.paginator = UncountedPaginator([], self.list_per_page)
        start = (self.page_num - 1) * self.list_per_page
        rows = list(self.queryset[start : start + self.list_per_page + 1])
        self.has_next = len(rows) > self.list_per_page and self.page_num < FURTHEST_PAGE
        self.at_the_end = len(rows) > self.list_per_page and self.page_num == FURTHEST_PAGE
        self.result_list: Any = rows[: self.list_per_page]
        self.result_count = len(self.result_list)
        self.full_result_count = self.result_count  # nothing is said of others
        self.show_full_result_count = self.show_admin_actions = True
        self.can_show_all, self.multi_page = False, True


class LongList(ReadOnlyPage):
    """Rows that only services write, of which there are many. Their order is the index's and cannot be changed."""

    sortable_by = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """The list."""
        return LongChangeList
