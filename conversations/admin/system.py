"""What is nobody's but the superusers': the queue's own tables."""

from __future__ import annotations

from django.contrib import admin
from django_q.admin import FailAdmin, QueueAdmin, ScheduleAdmin, TaskAdmin
from django_q.models import Failure, OrmQ, Schedule, Success

from conversations.admin.access import SUPERUSER
from conversations.admin.base import Page


class QueuePage(Page):
    """A page of django-q2's, for superusers (it names no client)."""

    to_add = None
    to_change = to_delete = SUPERUSER
    list_filter = ()


for model, theirs in {Success: TaskAdmin, Failure: FailAdmin, Schedule: ScheduleAdmin, OrmQ: QueueAdmin}.items():
    admin.site.unregister(model)
    admin.site.register(model, type(f"{model.__name__}Page", (QueuePage, theirs), {}))
