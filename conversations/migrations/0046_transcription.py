"""Clients name who writes down recordings."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0045_turns_waiting'),
    ]

    operations = [
        migrations.AddField(
            model_name='client',
            name='transcription_model',
            field=models.CharField(blank=True, db_default='', default='', max_length=100),
        ),
        migrations.AddField(
            model_name='client',
            name='transcription_provider',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.RESTRICT, related_name='+', to='conversations.modelprovider'),
        ),
    ]
