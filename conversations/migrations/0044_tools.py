"""Tools of clients, their MCP servers, and a row for each call; a call goes with its conversation."""

import conversations.models.checks
import conversations.models.fields
import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0043_own_agent'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='McpServer',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(help_text='Comes before the names of its tools where another tool has the same name.', max_length=20, validators=[django.core.validators.RegexValidator('^[a-zA-Z0-9_-]{1,20}\\Z', 'Write up to 20 letters, digits, - and _.')])),
                ('url', models.CharField(max_length=500, validators=[django.core.validators.URLValidator(schemes=['http', 'https'])], verbose_name='URL')),
                ('headers', conversations.models.fields.EncryptedJSONField(blank=True, default=dict, editable=False)),
                ('timeout_seconds', models.FloatField(db_default=20, default=20, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(60)])),
                ('is_active', models.BooleanField(db_default=True, default=True, help_text='Off: none of its tools is offered to models.')),
                ('listed_at', models.DateTimeField(editable=False, help_text='When its tools were listed last.', null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='mcp_servers', to='conversations.client')),
            ],
            options={
                'verbose_name': 'MCP server',
                'db_table': 'mcp_servers',
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='Tool',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('remote_name', models.CharField(blank=True, db_default='', default='', editable=False, max_length=200, verbose_name='name at the server')),
                ('name', models.CharField(help_text='The model calls it by this name.', max_length=64, validators=[django.core.validators.RegexValidator('^[a-zA-Z0-9_-]{1,64}\\Z', 'Write up to 64 letters, digits, - and _, without spaces.')])),
                ('description', models.TextField(blank=True, default='', help_text='For the model: what the tool does, when to call it, and what it answers.')),
                ('parameters', models.JSONField(default=dict, help_text='A JSON Schema of an object.', verbose_name='arguments')),
                ('url', models.CharField(blank=True, db_default='', default='', help_text='Calls are posted here.', max_length=500, validators=[django.core.validators.URLValidator(schemes=['http', 'https'])], verbose_name='URL')),
                ('credentials', conversations.models.fields.EncryptedJSONField(blank=True, default=dict, editable=False)),
                ('timeout_seconds', models.FloatField(db_default=20, default=20, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(60)])),
                ('changes_something', models.BooleanField(db_default=True, default=True, help_text='Off for a tool that only looks something up.')),
                ('needs_approval', models.BooleanField(db_default=False, default=False, help_text='A colleague must approve each call before it is made.')),
                ('may_repeat', models.BooleanField(db_default=False, default=False, help_text='On for a tool that does the same Idempotency-Key once, or that only looks something up: a call of unknown outcome is made again. Off: staff are asked to find out what happened.')),
                ('assistant_ids', django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), blank=True, db_default=[], default=list, help_text="The assistants that may call it. None chosen: all of the client's.", size=None, verbose_name='assistants')),
                ('is_active', models.BooleanField(db_default=True, default=True, help_text='Off: it is not offered to models.')),
                ('problem', models.CharField(blank=True, db_default='', default='', editable=False, help_text='Why it cannot be offered.', max_length=300)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='tools', to='conversations.client')),
                ('server', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='tools', to='conversations.mcpserver', verbose_name='MCP server')),
            ],
            options={
                'db_table': 'tools',
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='ToolCall',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=64)),
                ('arguments', models.JSONField(default=dict)),
                ('key', models.CharField(help_text='Idempotency key. Null: a built-in tool.', max_length=64, null=True)),
                ('round', models.UUIDField(null=True)),
                ('status', models.CharField(choices=[('waiting', 'Waiting'), ('approved', 'Approved'), ('refused', 'Refused'), ('expired', 'Expired'), ('requested', 'Requested'), ('calling', 'Calling'), ('answered', 'Answered'), ('failed', 'Failed'), ('unknown', 'Unknown')], max_length=10)),
                ('is_open', models.BooleanField(db_default=True, default=True)),
                ('turn_id', models.UUIDField(null=True)),
                ('attempt', models.PositiveSmallIntegerField(db_default=0, default=0)),
                ('given_to', models.UUIDField(help_text='The turn that was given the outcome last.', null=True)),
                ('changes_something', models.BooleanField(db_default=True, default=True, help_text='As the tool was then.')),
                ('may_repeat', models.BooleanField(db_default=False, default=False, help_text='As the tool was then.')),
                ('tries', models.PositiveSmallIntegerField(db_default=0, default=0)),
                ('lease_until', models.DateTimeField(null=True)),
                ('answer', models.TextField(blank=True, db_default='', default='')),
                ('code', models.CharField(blank=True, db_default='', default='', max_length=40)),
                ('decided_by_name', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('decided_at', models.DateTimeField(null=True)),
                ('reason', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('ended_at', models.DateTimeField(null=True)),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
                ('conversation', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='tool_calls', to='conversations.conversation')),
                ('decided_by', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('tool', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='conversations.tool')),
            ],
            options={
                'db_table': 'tool_calls',
                'ordering': ['created_at'],
            },
        ),
        migrations.AddConstraint(
            model_name='mcpserver',
            constraint=models.UniqueConstraint(fields=('client', 'name'), name='one_mcp_server_of_a_name'),
        ),
        migrations.AddConstraint(
            model_name='tool',
            constraint=models.UniqueConstraint(fields=('client', 'name'), name='one_tool_of_a_name'),
        ),
        migrations.AddConstraint(
            model_name='tool',
            constraint=models.UniqueConstraint(condition=models.Q(('server__isnull', False)), fields=('server', 'remote_name'), name='one_tool_of_a_server'),
        ),
        migrations.AddConstraint(
            model_name='tool',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('server__isnull', True), models.Q(('url', ''), _negated=True)), models.Q(('server__isnull', False), ('url', '')), _connector='OR'), name='tool_has_one_place', violation_error_message='A tool needs a URL.'),
        ),
        migrations.AddIndex(
            model_name='toolcall',
            index=models.Index(condition=models.Q(('is_open', True)), fields=['conversation'], name='tool_calls_open'),
        ),
        migrations.AddIndex(
            model_name='toolcall',
            index=models.Index(condition=models.Q(('status__in', ['waiting', 'approved', 'calling', 'unknown'])), fields=['status', 'lease_until'], name='tool_calls_unsettled'),
        ),
        migrations.AddConstraint(
            model_name='toolcall',
            constraint=models.UniqueConstraint(fields=('conversation', 'key'), name='one_tool_call_of_a_key'),
        ),
        migrations.AddConstraint(
            model_name='toolcall',
            constraint=models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"waiting","approved","refused","expired","requested","calling","answered","failed","unknown"}}\'::text[])', 'status'), name='tool_call_status_known'),
        ),
        migrations.AddConstraint(
            model_name='toolcall',
            constraint=models.CheckConstraint(condition=conversations.models.checks.Rule('LEAST({0}, {1}) >= 0', 'tries', 'attempt'), name='tool_call_tries_from_zero'),
        ),
        migrations.RunSQL(
            "ALTER TABLE tool_calls ADD CONSTRAINT tool_calls_conversation_id_cascades FOREIGN KEY (conversation_id) "
            "REFERENCES conversations (id) ON DELETE CASCADE",
            "ALTER TABLE tool_calls DROP CONSTRAINT tool_calls_conversation_id_cascades",
        ),
    ]
