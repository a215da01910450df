"""An assistant's own agent, and turns that wait for its callback."""

import conversations.models.fields
import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0042_model_provider_addresses'),
    ]

    operations = [
        migrations.AddField(
            model_name='assistant',
            name='agent_deadline_seconds',
            field=models.PositiveIntegerField(db_default=600, default=600, help_text='Seconds until which an agent that answers later must have called back.', validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(86400)], verbose_name="agent's deadline"),
        ),
        migrations.AddField(
            model_name='assistant',
            name='agent_secrets',
            field=conversations.models.fields.EncryptedJSONField(blank=True, db_default='', default=dict, editable=False),
        ),
        migrations.AddField(
            model_name='assistant',
            name='agent_timeout_seconds',
            field=models.FloatField(db_default=30.0, default=30.0, help_text='Seconds for the whole answer; of a stream, between two pieces.', validators=[django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(120)], verbose_name="agent's time-out"),
        ),
        migrations.AddField(
            model_name='assistant',
            name='agent_url',
            field=models.CharField(blank=True, db_default='', default='', help_text='Where the engine is agent: Convo posts there what was said, and the answer is the reply.', max_length=500, validators=[django.core.validators.URLValidator(schemes=['http', 'https'])], verbose_name="agent's URL"),
        ),
        migrations.AddField(
            model_name='turn',
            name='callback_hash',
            field=models.CharField(blank=True, db_default='', default='', help_text='SHA-256 of the token for a callback.', max_length=64),
        ),
        migrations.AddField(
            model_name='turn',
            name='called_back',
            field=models.BooleanField(db_default=False, default=False, help_text='The reply came by a callback.'),
        ),
        migrations.AddField(
            model_name='turn',
            name='waiting_until',
            field=models.DateTimeField(help_text="The client's own agent answers later, until then.", null=True),
        ),
        migrations.AddConstraint(
            model_name='assistant',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('engine', 'agent'), _negated=True), models.Q(('agent_url', ''), _negated=True), _connector='OR'), name='assistant_names_its_agent', violation_error_message='The engine agent needs the URL of the agent.'),
        ),
    ]
