"""Details that staff keep of a person, and replies of assistants that wait for a colleague."""

from __future__ import annotations

import conversations.models.checks
import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """Columns of contacts, found by their pieces, and the table of proposals, whose key begins with the client."""

    dependencies = [
        ("conversations", "0010_ratings_and_figures"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Proposal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("open", "Open"),
                            ("sent", "Sent"),
                            ("discarded", "Discarded"),
                            ("outdated", "Outdated"),
                        ],
                        db_default="open",
                        default="open",
                        max_length=10,
                    ),
                ),
                ("text", models.TextField()),
                ("metadata", models.JSONField(db_default={}, default=dict)),
                ("files", models.JSONField(db_default=[], default=list)),
                ("links", models.JSONField(db_default=[], default=list)),
                ("ends", models.BooleanField(db_default=False, default=False)),
                ("inbound_sequence", models.PositiveIntegerField()),
                ("turn_id", models.UUIDField(null=True)),
                ("chunk_id", models.BigIntegerField(null=True)),
                ("is_edited", models.BooleanField(db_default=False, default=False)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("decided_at", models.DateTimeField(null=True)),
                ("decided_by_name", models.CharField(blank=True, db_default="", default="", max_length=150)),
                ("client", models.ForeignKey(
                db_constraint=False,
                db_index=False,
                editable=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="conversations.client",
            )),
                ("conversation", models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="conversations.conversation",
            )),
                ("decided_by", models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            )),
            ],
            options={
                "db_table": "desk_proposals",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["client", "conversation", "id"], name="proposals_of_conversation"),
                    models.Index(fields=["client", "-id"], name="proposals_of_client"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                condition=models.Q(("state", "open")), fields=("client", "conversation"), name="one_open_proposal"
            ),
                    models.CheckConstraint(
                condition=conversations.models.checks.Rule(
                    '{0} = ANY (\'{{"open","sent","discarded","outdated"}}\'::text[])', "state"
                ),
                name="proposal_state_known",
            ),
                    models.CheckConstraint(
                condition=models.Q(
                    models.Q(("decided_at__isnull", True), ("state", "open")),
                    models.Q(models.Q(("state", "open"), _negated=True), ("decided_at__isnull", False)),
                    _connector="OR",
                ),
                name="proposal_decided_at_some_time",
            ),
                ],
            },
        ),
        migrations.RemoveConstraint(
            model_name="contactmatch",
            name="match_evidence_known",
        ),
        migrations.RemoveIndex(
            model_name="contact",
            name="contacts_by_pieces",
        ),
        migrations.AddField(
            model_name="assistant",
            name="proposes",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Its replies wait in the inbox until a colleague sends, edits or discards them. On the phone, where nobody can wait for that, it answers itself. Not for the copilot and not with the engine retell.",
                verbose_name="proposes; a person sends",
            ),
        ),
        migrations.AddField(
            model_name="client",
            name="asks_before_takeover",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Whether staff are asked before their reply takes a conversation over from the assistant.",
            ),
        ),
        migrations.AddField(
            model_name="contact",
            name="attributes",
            field=models.JSONField(blank=True, db_default={}, default=dict, editable=False),
        ),
        migrations.AddField(
            model_name="contact",
            name="email",
            field=models.CharField(blank=True, db_default="", default="", max_length=254, verbose_name="e-mail"),
        ),
        migrations.AddField(
            model_name="contact",
            name="language",
            field=models.CharField(blank=True, db_default="", default="", max_length=20),
        ),
        migrations.AddField(
            model_name="contact",
            name="staff_name",
            field=models.CharField(blank=True, db_default="", default="", max_length=200, verbose_name="name by staff"),
        ),
        migrations.AddField(
            model_name="presence",
            name="told_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AlterField(
            model_name="contactmatch",
            name="evidence",
            field=models.CharField(
                choices=[
                    ("same_phone", "both have the same phone"),
                    ("same_message", "one message named an address of each"),
                    ("moved", "the channel said that the one's address became the other's"),
                    ("entered", "a colleague entered the one's phone or e-mail for the other"),
                ],
                max_length=20,
            ),
        ),
        migrations.AddIndex(
            model_name="contact",
            index=django.contrib.postgres.indexes.GinIndex(
                models.Func("client", "name", "phone", "user_id", "staff_name", "email", function="pieces_of_names"),
                name="contacts_by_pieces",
            ),
        ),
        migrations.AddConstraint(
            model_name="assistant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("proposes", False),
                    models.Q(("in_copilot", False), models.Q(("engine", "retell"), _negated=True)),
                    _connector="OR",
                ),
                name="assistant_proposes_where_it_can",
                violation_error_message="An assistant that proposes cannot be in the copilot, where people read replies while they are written, nor have the engine retell, which keeps the conversation itself.",
            ),
        ),
        migrations.AddConstraint(
            model_name="contact",
            constraint=models.CheckConstraint(
                condition=conversations.models.checks.Rule(
                    "{0} IS NULL OR concat({1}, {2}, {3}, {4}) = '{{}}'",
                    "merged_into",
                    "staff_name",
                    "email",
                    "language",
                    "attributes",
                ),
                name="contact_alias_has_no_details",
            ),
        ),
        migrations.AddConstraint(
            model_name="contact",
            constraint=models.UniqueConstraint(
                condition=models.Q(("email", ""), _negated=True),
                fields=("client", "email"),
                name="one_contact_per_email",
            ),
        ),
        migrations.AddConstraint(
            model_name="contactmatch",
            constraint=models.CheckConstraint(
                condition=models.Q(("evidence__in", ["same_phone", "same_message", "moved", "entered"])),
                name="match_evidence_known",
            ),
        ),
        migrations.RunSQL(
            [
                "ALTER TABLE desk_proposals DROP CONSTRAINT desk_proposals_pkey,"
                " ADD CONSTRAINT desk_proposals_pkey PRIMARY KEY (client_id, id)",
                "ALTER TABLE desk_proposals ADD CONSTRAINT desk_proposals_conversation_id_cascades"
                " FOREIGN KEY (client_id, conversation_id) REFERENCES conversations (client_id, id) ON DELETE CASCADE",
            ]
        ),
    ]
