"""Model providers and what is known of their models; second models, summaries and time zones name them."""

import conversations.models.client
import conversations.models.fields
import conversations.models.model_provider
import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0040_plain_help_texts'),
    ]

    operations = [
        migrations.CreateModel(
            name='ModelProvider',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=100)),
                ('kind', models.CharField(choices=[('openai', 'OpenAI (Responses API)'), ('openai_compatible', 'OpenAI-compatible (chat completions)'), ('anthropic', 'Anthropic (Messages API)')], max_length=20)),
                ('base_url', models.CharField(blank=True, db_default='', default='', help_text="Empty: the provider's own. It may have query parameters, such as ?api-version=2026-10-01.", max_length=500, validators=[django.core.validators.URLValidator(schemes=['http', 'https'])], verbose_name='base URL')),
                ('credentials', conversations.models.fields.EncryptedJSONField(blank=True, default=dict, editable=False)),
                ('headers', conversations.models.fields.EncryptedJSONField(blank=True, default=dict, editable=False)),
                ('query', models.JSONField(blank=True, db_default={}, default=dict, validators=[conversations.models.model_provider.validate_texts], verbose_name='query parameters')),
                ('body', models.JSONField(blank=True, db_default={}, default=dict, help_text='Added to every request for an answer. They take precedence over what Convo would send.', validators=[conversations.models.model_provider.validate_object], verbose_name='body parameters')),
                ('timeout_seconds', models.FloatField(blank=True, help_text='For a whole answer, or between two pieces of a stream. Empty: OPENAI_TIMEOUT_SECONDS.', null=True, validators=[django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(600)])),
                ('from_environment', models.BooleanField(db_default=False, default=False, editable=False)),
                ('is_active', models.BooleanField(db_default=True, default=True)),
                ('health', models.CharField(choices=[('ok', 'Ok'), ('broken', 'Broken')], db_default='ok', default='ok', max_length=10)),
                ('health_reason', models.CharField(blank=True, db_default='', default='', max_length=300)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'db_table': 'model_providers',
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='ProviderModel',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('model', models.CharField(max_length=100)),
                ('learned', models.JSONField(blank=True, db_default={}, default=dict)),
                ('shutdown_date', models.DateField(blank=True, help_text="As the provider's list of models says.", null=True)),
                ('first_listed_at', models.DateTimeField(blank=True, null=True)),
                ('last_listed_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'verbose_name': 'model',
                'db_table': 'provider_models',
                'ordering': ['model'],
            },
        ),
        migrations.RemoveConstraint(
            model_name='assistant',
            name='assistant_engine_known',
        ),
        migrations.AddField(
            model_name='assistant',
            name='fallback_model',
            field=models.CharField(blank=True, db_default='', default='', help_text='Asked when the first is down or refuses. Empty: no second model.', max_length=100, verbose_name='second model'),
        ),
        migrations.AddField(
            model_name='assistant',
            name='reasoning_effort',
            field=models.CharField(blank=True, db_default='', default='', help_text='How long a reasoning model thinks before it answers: none, low, medium, high. Empty: its default.', max_length=20, validators=[django.core.validators.RegexValidator('^[a-z]+\\Z', 'Write one word, such as none, low, medium or high.')]),
        ),
        migrations.AddField(
            model_name='client',
            name='summary_model',
            field=models.CharField(blank=True, db_default='', default='', max_length=100),
        ),
        migrations.AddField(
            model_name='client',
            name='time_zone',
            field=models.CharField(db_default='UTC', default='UTC', max_length=64, validators=[conversations.models.client.validate_time_zone]),
        ),
        migrations.AddField(
            model_name='turn',
            name='calls',
            field=models.PositiveSmallIntegerField(db_default=0, default=0, help_text='Calls to models.'),
        ),
        migrations.AddField(
            model_name='turn',
            name='tokens_cached',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='Of tokens_in: read from a cache.'),
        ),
        migrations.AlterField(
            model_name='assistant',
            name='engine',
            field=models.CharField(choices=[('auto', 'Auto'), ('openai', 'Openai'), ('retell', 'Retell'), ('agent', 'Agent'), ('offline', 'Offline')], default='auto', max_length=20),
        ),
        migrations.AlterField(
            model_name='assistant',
            name='model',
            field=models.CharField(blank=True, default='', help_text="Empty: OPENAI_MODEL, at the installation's provider.", max_length=100),
        ),
        migrations.AlterField(
            model_name='turn',
            name='cost',
            field=models.DecimalField(decimal_places=8, help_text='US dollars, by the prices at the time. Null: unknown.', max_digits=14, null=True),
        ),
        migrations.AddField(
            model_name='modelprovider',
            name='client',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='model_providers', to='conversations.client'),
        ),
        migrations.AddField(
            model_name='assistant',
            name='fallback_provider',
            field=models.ForeignKey(blank=True, help_text='Asked when the first is down or refuses. Empty: the same provider.', null=True, on_delete=django.db.models.deletion.RESTRICT, related_name='+', to='conversations.modelprovider', verbose_name='second provider'),
        ),
        migrations.AddField(
            model_name='assistant',
            name='model_provider',
            field=models.ForeignKey(blank=True, help_text="Empty: the installation's provider.", null=True, on_delete=django.db.models.deletion.RESTRICT, related_name='+', to='conversations.modelprovider'),
        ),
        migrations.AddField(
            model_name='client',
            name='embedding_provider',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.RESTRICT, related_name='+', to='conversations.modelprovider'),
        ),
        migrations.AddField(
            model_name='client',
            name='summary_provider',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.RESTRICT, related_name='+', to='conversations.modelprovider'),
        ),
        migrations.AddConstraint(
            model_name='assistant',
            constraint=models.CheckConstraint(condition=models.Q(('engine__in', ['auto', 'openai', 'retell', 'agent', 'offline'])), name='assistant_engine_known'),
        ),
        migrations.AddConstraint(
            model_name='assistant',
            constraint=models.CheckConstraint(condition=models.Q(('fallback_provider__isnull', True), models.Q(('fallback_model', ''), _negated=True), _connector='OR'), name='assistant_names_its_second_model', violation_error_message='A second provider needs a second model.'),
        ),
        migrations.AddConstraint(
            model_name='assistant',
            constraint=models.CheckConstraint(condition=models.Q(('model_provider__isnull', True), models.Q(('model', ''), _negated=True), _connector='OR'), name='assistant_names_its_model', violation_error_message='A model provider needs a model.'),
        ),
        migrations.AddConstraint(
            model_name='client',
            constraint=models.CheckConstraint(condition=models.Q(('summary_provider__isnull', True), models.Q(('summary_model', ''), _negated=True), _connector='OR'), name='client_names_its_summary_model', violation_error_message='A provider of summaries needs a model.'),
        ),
        migrations.AddField(
            model_name='providermodel',
            name='client',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client'),
        ),
        migrations.AddField(
            model_name='providermodel',
            name='provider',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='models', to='conversations.modelprovider'),
        ),
        migrations.AddConstraint(
            model_name='modelprovider',
            constraint=models.UniqueConstraint(fields=('client', 'name'), name='one_model_provider_of_a_name'),
        ),
        migrations.AddConstraint(
            model_name='modelprovider',
            constraint=models.UniqueConstraint(condition=models.Q(('client__isnull', True)), fields=('name',), name='one_shared_model_provider_of_a_name'),
        ),
        migrations.AddConstraint(
            model_name='modelprovider',
            constraint=models.UniqueConstraint(condition=models.Q(('from_environment', True)), fields=('from_environment',), name='one_model_provider_from_the_environment'),
        ),
        migrations.AddConstraint(
            model_name='modelprovider',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['openai', 'openai_compatible', 'anthropic'])), name='model_provider_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='modelprovider',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'openai_compatible'), _negated=True), models.Q(('base_url', ''), _negated=True), ('from_environment', True), _connector='OR'), name='compatible_provider_has_its_address', violation_error_message='An OpenAI-compatible provider needs a base URL.'),
        ),
        migrations.AddConstraint(
            model_name='modelprovider',
            constraint=models.CheckConstraint(condition=models.Q(('from_environment', False), ('client__isnull', True), _connector='OR'), name='environment_provider_is_shared'),
        ),
        migrations.AddConstraint(
            model_name='providermodel',
            constraint=models.UniqueConstraint(fields=('provider', 'model'), name='one_model_at_a_provider'),
        ),
    ]
