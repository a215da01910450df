"""The sums of figures by day."""

import uuid

import django.db.models.deletion
from django.db import migrations, models

KEYS = [
    f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD CONSTRAINT {table}_pkey PRIMARY KEY (client_id, id)"
    for table in ("day_figures", "day_times")
]


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0012_preferences'),
    ]

    operations = [
        migrations.CreateModel(
            name='DaysSummed',
            fields=[
                ('client', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='+', serialize=False, to='conversations.client')),
                ('zone', models.CharField(max_length=64)),
                ('upto', models.DateTimeField()),
            ],
            options={
                'db_table': 'days_summed',
            },
        ),
        migrations.CreateModel(
            name='DayFigures',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('label_id', models.BigIntegerField(db_default=0, default=0)),
                ('team_id', models.BigIntegerField(db_default=0, default=0)),
                ('channel', models.CharField(max_length=10)),
                ('assistant_id', models.UUIDField(db_default=uuid.UUID('00000000-0000-0000-0000-000000000000'), default=uuid.UUID('00000000-0000-0000-0000-000000000000'))),
                ('colleague_id', models.BigIntegerField(db_default=0, default=0)),
                ('day', models.DateTimeField()),
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
                'db_table': 'day_figures',
                'constraints': [models.UniqueConstraint(fields=('client', 'label_id', 'team_id', 'day', 'channel', 'assistant_id', 'colleague_id'), name='one_row_of_a_day')],
            },
        ),
        migrations.CreateModel(
            name='DayTimes',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('label_id', models.BigIntegerField(db_default=0, default=0)),
                ('team_id', models.BigIntegerField(db_default=0, default=0)),
                ('channel', models.CharField(max_length=10)),
                ('assistant_id', models.UUIDField(db_default=uuid.UUID('00000000-0000-0000-0000-000000000000'), default=uuid.UUID('00000000-0000-0000-0000-000000000000'))),
                ('colleague_id', models.BigIntegerField(db_default=0, default=0)),
                ('day', models.DateTimeField()),
                ('kind', models.CharField(choices=[('first', 'First Response'), ('resolution', 'Resolution')], max_length=10)),
                ('bucket', models.SmallIntegerField()),
                ('number', models.IntegerField()),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
            ],
            options={
                'db_table': 'day_times',
                'constraints': [models.UniqueConstraint(fields=('client', 'label_id', 'team_id', 'day', 'channel', 'assistant_id', 'colleague_id', 'kind', 'bucket'), name='one_bucket_of_a_day')],
            },
        ),
        *(migrations.RunSQL(each, migrations.RunSQL.noop) for each in KEYS),
    ]
