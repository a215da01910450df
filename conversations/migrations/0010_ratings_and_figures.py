"""The question about satisfaction with its answers, and the figures of each quarter of an hour."""

from __future__ import annotations

import conversations.models.checks
import django.core.validators
import django.db.models.deletion
import uuid
from django.db import migrations, models


KEYED = ("ratings", "quarter_figures", "quarter_times")
KEYS = [
    *(
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD CONSTRAINT {table}_pkey PRIMARY KEY (client_id, id)"
        for table in KEYED
    ),
    "ALTER TABLE ratings ADD CONSTRAINT ratings_conversation_id_cascades FOREIGN KEY (client_id, conversation_id)"
    " REFERENCES conversations (client_id, id) ON DELETE CASCADE",
]


class Migration(migrations.Migration):
    """The tables, with keys that begin with the client."""

    dependencies = [
        ('conversations', '0009_hours_and_mail'),
    ]

    operations = [
        migrations.CreateModel(
            name='FiguresDone',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('upto', models.DateTimeField()),
            ],
            options={
                'db_table': 'figures_done',
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('pk', 1)), name='figures_done_once'),
                ],
            },
        ),
        migrations.CreateModel(
            name='QuarterFigures',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('quarter', models.DateTimeField()),
                ('label_id', models.BigIntegerField(db_default=0, default=0)),
                ('team_id', models.BigIntegerField(db_default=0, default=0)),
                ('channel', models.CharField(max_length=10)),
                ('assistant_id', models.UUIDField(db_default=uuid.UUID('00000000-0000-0000-0000-000000000000'), default=uuid.UUID('00000000-0000-0000-0000-000000000000'))),
                ('colleague_id', models.BigIntegerField(db_default=0, default=0)),
                ('of_deleted', models.BooleanField(db_default=False, default=False)),
                ('opened', models.IntegerField(db_default=0, default=0)),
                ('ended', models.IntegerField(db_default=0, default=0)),
                ('answered_alone', models.IntegerField(db_default=0, default=0)),
                ('handed_over', models.IntegerField(db_default=0, default=0)),
                ('late', models.IntegerField(db_default=0, default=0)),
                ('messages_in', models.IntegerField(db_default=0, default=0)),
                ('messages_out', models.IntegerField(db_default=0, default=0)),
                ('asked', models.IntegerField(db_default=0, default=0)),
                ('ratings', models.IntegerField(db_default=0, default=0)),
                ('satisfied', models.IntegerField(db_default=0, default=0)),
                ('rating_sum', models.IntegerField(db_default=0, default=0)),
                ('tokens', models.BigIntegerField(db_default=0, default=0)),
                ('cost', models.DecimalField(db_default=0, decimal_places=8, default=0, help_text='US dollars.', max_digits=20)),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
            ],
            options={
                'db_table': 'quarter_figures',
                'constraints': [
                    models.UniqueConstraint(fields=('client', 'label_id', 'team_id', 'quarter', 'channel', 'assistant_id', 'colleague_id', 'of_deleted'), name='one_row_of_a_quarter'),
                ],
            },
        ),
        migrations.CreateModel(
            name='QuarterTimes',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('quarter', models.DateTimeField()),
                ('label_id', models.BigIntegerField(db_default=0, default=0)),
                ('team_id', models.BigIntegerField(db_default=0, default=0)),
                ('channel', models.CharField(max_length=10)),
                ('assistant_id', models.UUIDField(db_default=uuid.UUID('00000000-0000-0000-0000-000000000000'), default=uuid.UUID('00000000-0000-0000-0000-000000000000'))),
                ('colleague_id', models.BigIntegerField(db_default=0, default=0)),
                ('of_deleted', models.BooleanField(db_default=False, default=False)),
                ('kind', models.CharField(choices=[('first', 'First Response'), ('resolution', 'Resolution')], max_length=10)),
                ('bucket', models.SmallIntegerField()),
                ('number', models.IntegerField()),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
            ],
            options={
                'db_table': 'quarter_times',
                'constraints': [
                    models.UniqueConstraint(fields=('client', 'label_id', 'team_id', 'quarter', 'channel', 'assistant_id', 'colleague_id', 'of_deleted', 'kind', 'bucket'), name='one_bucket_of_a_quarter'),
                    models.CheckConstraint(condition=models.Q(('kind__in', ['first', 'resolution'])), name='time_kind_known'),
                ],
            },
        ),
        migrations.CreateModel(
            name='Rating',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('scale', models.CharField(choices=[('five', '1 to 5'), ('thumbs', 'Thumbs up or down')], max_length=10)),
                ('asked_at', models.DateTimeField()),
                ('score', models.SmallIntegerField(help_text='1 to 5.', null=True)),
                ('rated_at', models.DateTimeField(null=True)),
                ('client', models.ForeignKey(db_constraint=False, db_index=False, editable=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='conversations.client')),
                ('conversation', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='ratings', to='conversations.conversation')),
            ],
            options={
                'db_table': 'ratings',
                'indexes': [
                    models.Index(fields=['client', 'asked_at'], name='ratings_asked'),
                    models.Index(condition=models.Q(('rated_at__isnull', False)), fields=['client', 'rated_at'], name='ratings_given'),
                ],
                'constraints': [
                    models.UniqueConstraint(fields=('client', 'conversation'), name='one_rating_of_a_conversation'),
                    models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"five","thumbs"}}\'::text[])', 'scale'), name='rating_scale_known'),
                    models.CheckConstraint(condition=models.Q(models.Q(('rated_at__isnull', True), ('score__isnull', True)), models.Q(('rated_at__isnull', False), ('score__gte', 1), ('score__lte', 5)), _connector='OR'), name='rating_is_answered_or_not'),
                ],
            },
        ),
        migrations.CreateModel(
            name='Survey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('channel', models.CharField(choices=[('messenger', 'messenger'), ('whatsapp', 'whatsapp'), ('sms', 'sms'), ('orb', 'orb')], max_length=10)),
                ('is_active', models.BooleanField(db_default=True, default=True, verbose_name='active')),
                ('text', models.TextField(help_text='Write what the answers mean, such as: How satisfied are you? Answer with a number from 1 (not at all) to 5 (very). Where the channel has buttons or lists, the answers are offered as such.', validators=[django.core.validators.MaxLengthValidator(900)], verbose_name='question')),
                ('scale', models.CharField(choices=[('five', '1 to 5'), ('thumbs', 'Thumbs up or down')], db_default='five', default='five', max_length=10)),
                ('days_between', models.PositiveSmallIntegerField(db_default=30, default=30, help_text='A person who was asked is not asked again for so many days, on any channel. 0: each time.', validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(3650)], verbose_name='days between two questions')),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='surveys', to='conversations.client')),
            ],
            options={
                'verbose_name': 'satisfaction question',
                'db_table': 'surveys',
                'ordering': ['channel'],
                'constraints': [
                    models.UniqueConstraint(fields=('client', 'channel'), name='one_survey_of_a_channel'),
                    models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"messenger","whatsapp","sms","orb"}}\'::text[])', 'channel'), name='survey_channel_known'),
                    models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"five","thumbs"}}\'::text[])', 'scale'), name='survey_scale_known'),
                    models.CheckConstraint(condition=models.Q(('days_between__lte', 3650)), name='survey_days_between_known'),
                ],
            },
        ),
        migrations.RemoveConstraint(
            model_name='eventendpoint',
            name='event_endpoint_kinds_known',
        ),
        migrations.AddConstraint(
            model_name='eventendpoint',
            constraint=models.CheckConstraint(condition=models.Q(('kinds__contained_by', ['message.in', 'message.out', 'message.edited', 'message.deleted', 'message.corrected', 'delivery.updated', 'conversation.opened', 'conversation.revived', 'conversation.stale', 'conversation.ended', 'conversation.archived', 'conversation.taken_over', 'conversation.handed_back', 'conversation.needs_staff', 'conversation.labelled', 'conversation.rated', 'conversation.changed', 'step.updated', 'tool.updated', 'summary.ready', 'contact.changed', 'contact.erased'])), name='event_endpoint_kinds_known'),
        ),
        *(migrations.RunSQL(each, migrations.RunSQL.noop) for each in KEYS),
    ]
