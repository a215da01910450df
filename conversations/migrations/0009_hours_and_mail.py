"""Business hours and promises of clients, hand-overs that wait for an opening, and e-mails to staff."""

from __future__ import annotations

import datetime

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import conversations.models.checks
import conversations.models.hours


def key(table: str) -> migrations.RunSQL:
    """Return the operation that makes the client the beginning of the table's primary key."""
    return migrations.RunSQL(
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD CONSTRAINT {table}_pkey PRIMARY KEY (client_id, id)",
        migrations.RunSQL.noop,
    )


def go_with(table: str, column: str, other: str) -> migrations.RunSQL:
    """Return the operation after which the rows of the table are deleted with the rows that the column names."""
    name = f"{table}_{column}_cascades"
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (client_id, {column})"
        f" REFERENCES {other} (client_id, id) ON DELETE CASCADE",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


class Migration(migrations.Migration):
    """The tables, with keys that begin with the client."""

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("conversations", "0008_teams"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ClientHours",
            fields=[
                (
                    "client",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="conversations.client",
                    ),
                ),
                (
                    "week",
                    models.JSONField(
                        db_default=[[], [], [], [], [], [], []], default=conversations.models.hours.no_hours
                    ),
                ),
                ("holidays", models.JSONField(db_default=[], default=list)),
                (
                    "outside",
                    models.CharField(
                        choices=[
                            ("always", "Nothing changes: people are handed over at once"),
                            ("assistant", "The assistant answers alone; every hand-over waits for the next opening"),
                            ("wish", "The same, but who asks for a person is handed over at once"),
                        ],
                        db_default="always",
                        default="always",
                        max_length=10,
                    ),
                ),
                (
                    "outside_sentence",
                    models.TextField(
                        blank=True,
                        db_default="Our colleagues are away right now. One of them answers you from {when} on.",
                        default="Our colleagues are away right now. One of them answers you from {when} on.",
                        validators=[django.core.validators.MaxLengthValidator(1000)],
                    ),
                ),
                ("outside_language", models.CharField(db_default="en", default="en", max_length=10)),
                ("first_response_within", models.DurationField(blank=True, null=True)),
                ("resolve_within", models.DurationField(blank=True, null=True)),
                ("counts_business_time", models.BooleanField(db_default=True, default=True)),
            ],
            options={
                "db_table": "client_hours",
                "constraints": [
                    models.CheckConstraint(
                        condition=conversations.models.checks.Rule(
                            '{0} = ANY (\'{{"always","assistant","wish"}}\'::text[])', "outside"
                        ),
                        name="client_hours_outside_known",
                    ),
                    models.CheckConstraint(
                        condition=conversations.models.checks.Rule(
                            "CASE WHEN jsonb_typeof({0}) = 'array' THEN jsonb_array_length({0}) END = 7", "week"
                        ),
                        name="client_hours_are_of_a_week",
                    ),
                    models.CheckConstraint(
                        condition=conversations.models.checks.Rule("jsonb_typeof({0}) = 'array'", "holidays"),
                        name="client_holidays_are_a_list",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("first_response_within__isnull", True),
                                ("first_response_within__gt", datetime.timedelta(0)),
                                _connector="OR",
                            ),
                            models.Q(
                                ("resolve_within__isnull", True),
                                ("resolve_within__gt", datetime.timedelta(0)),
                                _connector="OR",
                            ),
                        ),
                        name="client_hours_promise_some_time",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="MailChoice",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("address", models.EmailField(max_length=254)),
                ("time_zone", models.CharField(default="UTC", max_length=64)),
                ("tells_mine", models.BooleanField(db_default=False, default=False)),
                ("tells_unassigned", models.BooleanField(db_default=False, default=False)),
                ("after_minutes", models.PositiveSmallIntegerField(db_default=15, default=15)),
                ("tells_digest", models.BooleanField(db_default=False, default=False)),
                ("digest_hour", models.PositiveSmallIntegerField(db_default=8, default=8)),
                ("here_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "mail_choices",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("after_minutes__gte", 1), ("after_minutes__lte", 1440)),
                        name="mail_choice_minutes_fit",
                    ),
                    models.CheckConstraint(condition=models.Q(("digest_hour__lte", 23)), name="mail_choice_hour_fits"),
                ],
            },
        ),
        migrations.CreateModel(
            name="StaffMail",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(choices=[("waiting", "Waiting"), ("digest", "Digest")], max_length=10)),
                ("day", models.DateField(null=True)),
                (
                    "state",
                    models.CharField(
                        choices=[("queued", "Queued"), ("sent", "Sent"), ("dropped", "Dropped"), ("failed", "Failed")],
                        db_default="queued",
                        default="queued",
                        max_length=10,
                    ),
                ),
                ("due_at", models.DateTimeField()),
                ("lease_until", models.DateTimeField(null=True)),
                ("attempts", models.PositiveSmallIntegerField(db_default=0, default=0)),
                ("lost", models.PositiveSmallIntegerField(db_default=0, default=0)),
                ("error", models.CharField(blank=True, db_default="", default="", max_length=100)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "client",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        editable=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="conversations.client",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "staff_mails",
                "indexes": [
                    models.Index(
                condition=models.Q(("state", "queued")), fields=["client", "due_at"], name="staff_mails_queued"
            ),
                    models.Index(fields=["client", "created_at"], name="staff_mails_by_age"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                condition=models.Q(("day__isnull", False)), fields=("client", "user", "day"), name="one_digest_a_day"
            ),
                    models.CheckConstraint(
                condition=conversations.models.checks.Rule(
                    '{0} = ANY (\'{{"queued","sent","dropped","failed"}}\'::text[])', "state"
                ),
                name="staff_mail_state_known",
            ),
                    models.CheckConstraint(
                condition=conversations.models.checks.Rule('{0} = ANY (\'{{"waiting","digest"}}\'::text[])', "kind"),
                name="staff_mail_kind_known",
            ),
                    models.CheckConstraint(
                condition=conversations.models.checks.Rule("LEAST({0}, {1}) >= 0", "attempts", "lost"),
                name="staff_mail_counts_from_zero",
            ),
                ],
            },
        ),
        migrations.CreateModel(
            name="MailMark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("since", models.DateTimeField()),
                (
                    "client",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        editable=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="conversations.client",
                    ),
                ),
                (
                    "conversation",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="conversations.conversation",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "mail",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="marks",
                        to="conversations.staffmail",
                    ),
                ),
            ],
            options={
                "db_table": "staff_mail_marks",
                "indexes": [
                    models.Index(fields=["client", "mail"], name="marks_of_mail"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("client", "conversation", "user", "since"), name="told_once"),
                ],
            },
        ),
        migrations.CreateModel(
            name="PendingHandover",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("due_at", models.DateTimeField()),
                ("reason", models.CharField(blank=True, max_length=200)),
                ("actor", models.CharField(max_length=10)),
                ("actor_name", models.CharField(blank=True, max_length=200)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "client",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        editable=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="conversations.client",
                    ),
                ),
                (
                    "conversation",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="conversations.conversation",
                    ),
                ),
            ],
            options={
                "db_table": "desk_handovers",
                "indexes": [models.Index(fields=["client", "due_at"], name="handovers_due")],
                "constraints": [
                    models.UniqueConstraint(fields=("client", "conversation"), name="one_pending_handover")
                ],
            },
        ),
        *(key(table) for table in ("desk_handovers", "staff_mails", "staff_mail_marks")),
        go_with("desk_handovers", "conversation_id", "conversations"),
        go_with("staff_mail_marks", "conversation_id", "conversations"),
        go_with("staff_mail_marks", "mail_id", "staff_mails"),
    ]
