"""The base URL of a model provider may name a host that only this network knows, and no password."""

import conversations.models.model_provider
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0041_model_providers'),
    ]

    operations = [
        migrations.AlterField(
            model_name='modelprovider',
            name='base_url',
            field=models.CharField(blank=True, db_default='', default='', help_text="Empty: the provider's own. It may have query parameters, such as ?api-version=2026-10-01.", max_length=500, validators=[conversations.models.model_provider.validate_base_url], verbose_name='base URL'),
        ),
    ]
