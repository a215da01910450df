"""Teams, their members, who is available, and saved views."""

from __future__ import annotations

import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


# The keys of a client's rows begin with the client: see migration 0002.
VIEWS_OF_CLIENT = """
ALTER TABLE desk_views DROP CONSTRAINT desk_views_pkey, ADD CONSTRAINT desk_views_pkey PRIMARY KEY (client_id, id);
"""


class Migration(migrations.Migration):
    """The tables and the two columns."""

    dependencies = [
        ('conversations', '0007_files_of_the_simulator'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='membership',
            name='is_available',
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
        migrations.CreateModel(
            name='SavedView',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=60)),
                ('filters', models.JSONField(default=dict)),
                ('client', models.ForeignKey(db_constraint=False, db_index=False, editable=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='conversations.client')),
                ('owner', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'db_table': 'desk_views',
                'ordering': ['name'],
                'constraints': [
                    models.UniqueConstraint(fields=('client', 'owner', 'name'), name='one_own_view_of_a_name'),
                    models.UniqueConstraint(condition=models.Q(('owner__isnull', True)), fields=('client', 'name'), name='one_shared_view_of_a_name'),
                ],
            },
        ),
        migrations.CreateModel(
            name='Team',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=60, verbose_name='name')),
                ('is_default', models.BooleanField(db_default=False, default=False, help_text="It gets the client's conversations that need a person and are assigned to nobody.", verbose_name='default team')),
                ('hands_out', models.BooleanField(db_default=False, default=False, help_text='Its conversations that need a person are assigned to available members in turn.', verbose_name='round robin')),
                ('most_open', models.PositiveSmallIntegerField(db_default=5, default=5, help_text='Round robin gives nothing to a member who has so many open conversations of the client.', validators=[django.core.validators.MinValueValidator(1)], verbose_name='limit')),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='teams', to='conversations.client')),
            ],
            options={
                'verbose_name': 'team',
                'verbose_name_plural': 'teams',
                'db_table': 'desk_teams',
                'ordering': ['name'],
                'constraints': [
                    models.UniqueConstraint(fields=('client', 'name'), name='one_team_of_a_name', violation_error_message='The client has a team of this name.'),
                    models.UniqueConstraint(condition=models.Q(('is_default', True)), fields=('client',), name='one_default_team', violation_error_message='The client has a default team already.'),
                    models.CheckConstraint(condition=models.Q(('most_open__gte', 1)), name='team_limit_allows_something'),
                ],
            },
        ),
        migrations.CreateModel(
            name='TeamMember',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('most_open', models.PositiveSmallIntegerField(blank=True, help_text="Empty: the team's limit.", null=True, validators=[django.core.validators.MinValueValidator(1)], verbose_name='limit')),
                ('last_given_at', models.DateTimeField(editable=False, null=True)),
                ('client', models.ForeignKey(db_constraint=False, db_index=False, editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
                ('membership', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='teams', to='conversations.membership', verbose_name='member')),
                ('team', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='members', to='conversations.team')),
            ],
            options={
                'verbose_name': 'team member',
                'verbose_name_plural': 'team members',
                'db_table': 'desk_team_members',
                'indexes': [
                    models.Index(fields=['client', 'membership'], name='teams_of_membership'),
                ],
                'constraints': [
                    models.UniqueConstraint(fields=('client', 'team', 'membership'), name='one_member_once', violation_error_message='This person is in the team already.'),
                    models.CheckConstraint(condition=models.Q(('most_open__isnull', True), ('most_open__gte', 1), _connector='OR'), name='member_limit_allows_something'),
                ],
            },
        ),
        migrations.AddField(
            model_name='deskstate',
            name='team',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='conversations.team'),
        ),
        migrations.AddIndex(
            model_name='deskstate',
            index=models.Index(condition=models.Q(('team__isnull', False)), fields=['client', 'team'], name='states_of_team'),
        ),
        migrations.RunSQL(VIEWS_OF_CLIENT, migrations.RunSQL.noop),
    ]
