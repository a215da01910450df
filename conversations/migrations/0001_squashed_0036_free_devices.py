"""Everything up to 0036 at once, for a new database; one that took the steps goes on from them.

The tables have their columns in the order in which the steps added them, so that both ways make the same database.

Row-level security: the policies bind the copilot's role alone. They are restrictive, beside a policy that lets everybody
else through, so that the tables' owner (who is not asked anyway) and any other role go on as before.
"""

import conversations.models.checks
import conversations.models.client
import conversations.models.fields
import datetime
import django.contrib.postgres.fields
import django.contrib.postgres.functions
import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError, migrations, models, transaction

REPLACED = """
    0001_initial
    0002_cascade_in_the_database
    0003_remember_and_archive
    0004_staff_actions
    0005_order_steps_by_rank
    0006_correct_and_redact_chunks
    0007_index_the_list_of_sessions
    0008_do_many_at_once
    0009_archive_many_at_once
    0010_answers_once
    0011_keep_prompts_in_bounds
    0012_simulate_channels
    0013_agent_states
    0014_keep_the_copilot_s_sessions
    0015_confine_the_copilot
    0016_bursts_and_takeovers
    0017_keep_what_arrived
    0018_count_receipts
    0019_answer_calls
    0020_send_templates_and_quotes
    0021_opt_out
    0022_pause_sending
    0023_retell
    0024_erase_people
    0025_confine_the_copilot_at_less_cost
    0026_write_checks_in_short
    0027_match_contacts
    0028_redact_before_keeping
    0029_recall_at_the_opening
    0030_say_when_an_account_was_mended
    0031_limit_sign_ins
    0032_list_feedback
    0033_hold_sessions
    0034_keep_for_days
    0035_prove_erasures
    0036_free_devices
""".split()

# Foreign keys whose cascade is the database's own, so that a purge is one statement.
CASCADES = [
    # table, column, referenced table
    ("contact_identities", "contact_id", "contacts"),
    ("contact_identities", "client_id", "clients"),
    ("conversation_chunks", "conversation_id", "conversations"),
    ("conversation_steps", "conversation_id", "conversations"),
    ("conversation_events", "conversation_id", "conversations"),
    ("conversation_messages", "conversation_id", "conversations"),
    ("conversation_messages", "chunk_id", "conversation_chunks"),
    ("conversation_turns", "conversation_id", "conversations"),
    ("conversation_turns", "chunk_id", "conversation_chunks"),
    ("chunk_corrections", "chunk_id", "conversation_chunks"),
    ("idempotency_keys", "conversation_id", "conversations"),
    ("conversation_summaries", "conversation_id", "conversations"),
    ("conversation_states", "conversation_id", "conversations"),
    ("conversation_orders", "conversation_id", "conversations"),
    ("copilot_deltas", "turn_id", "conversation_turns"),
    ("copilot_feedback", "chunk_id", "conversation_chunks"),
    ("copilot_feedback", "conversation_id", "conversations"),
    ("conversation_call_answers", "conversation_id", "conversations"),
    ("engine_chats", "conversation_id", "conversations"),
]
CASCADES_OF_CONTACTS = [("contacts", "merged_into_id"), ("contact_matches", "first_id"), ("contact_matches", "second_id")]

ROLE = settings.COPILOT_ROLE

# Who is signed in: ids of users, in a setting that lasts as long as the transaction. Nobody where it is not set.
LOGINS = "ANY (string_to_array(current_setting('convo.logins', true), ',')::int[])"

# They run as the tables' owner, who is not asked by the policies, and look at nothing but what is asked for.
FUNCTIONS = {
    "copilot_clients()": (
        "uuid[]",
        f"""ARRAY(SELECT c.id FROM memberships m JOIN clients c ON c.id = m.client_id
                  WHERE m.user_id = {LOGINS} AND c.is_active)""",
    ),
    "copilot_contacts()": (
        "uuid[]",
        f"ARRAY(SELECT p.id FROM contacts p WHERE p.login_id = {LOGINS} AND p.client_id = ANY (copilot_clients()))",
    ),
    "copilot_sees(session uuid)": (
        "boolean",
        f"""EXISTS (
            SELECT FROM conversations s JOIN contacts p ON p.id = s.contact_id
            JOIN memberships m ON m.user_id = p.login_id AND m.client_id = p.client_id
            JOIN clients c ON c.id = p.client_id AND c.is_active
            WHERE s.id = session AND s.channel = 'web' AND p.login_id = {LOGINS})""",
    ),
}
MINE = "ANY ((SELECT copilot_clients())::uuid[])"  # a sub-select, so that it is asked once for a query
OF_A_SESSION_SEEN = "copilot_sees(conversation_id)"

# table: what the role sees of it, and what it may do there.
CONFINED = {
    "memberships": (f"user_id = {LOGINS}", "SELECT"),
    "clients": (f"id = {MINE}", "SELECT"),
    "assistants": (f"client_id = {MINE}", "SELECT"),
    "contacts": (f"login_id = {LOGINS} AND client_id = {MINE}", "SELECT, INSERT"),
    "conversations": (
        "channel = 'web' AND contact_id = ANY ((SELECT copilot_contacts())::uuid[])",
        "SELECT, INSERT, UPDATE, DELETE",
    ),
    "conversation_chunks": (OF_A_SESSION_SEEN, "SELECT, INSERT, UPDATE (metadata)"),
    "conversation_turns": (OF_A_SESSION_SEEN, "SELECT, INSERT, UPDATE (stop_asked_at)"),
    "conversation_events": (OF_A_SESSION_SEEN, "SELECT, INSERT"),
    "chunk_corrections": ("EXISTS (SELECT FROM conversation_chunks k WHERE k.id = chunk_id)", "SELECT"),
    "copilot_feedback": (OF_A_SESSION_SEEN, "SELECT, INSERT, UPDATE, DELETE"),
    "copilot_deltas": (f"login_id = {LOGINS}", "SELECT"),
}

WHAT_TO_RUN = """
The copilot needs the database role "{role}", which row-level security confines to the signed-in user's rows,
and the role "{own}" may not {what}. Have a superuser run this once, then migrate again:

    CREATE ROLE "{role}" NOLOGIN;
    GRANT "{role}" TO "{own}";

Another name can be set as COPILOT_ROLE."""


def make_role(apps, schema_editor):
    """There is the role, and we may take it on. Raises CommandError with what to run where we may not see to that."""
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [ROLE])
        [(own, exists)] = cursor.fetchall()
        if not exists and not _allowed(cursor, f'CREATE ROLE "{ROLE}" NOLOGIN'):
            # Or somebody else made it at this very moment, for another database of the same server.
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
            if not cursor.fetchall():
                raise CommandError(WHAT_TO_RUN.format(role=ROLE, own=own, what="create it"))
        if not _can_take_on(cursor) and not (
            _allowed(cursor, f'GRANT "{ROLE}" TO CURRENT_USER') and _can_take_on(cursor)
        ):
            raise CommandError(WHAT_TO_RUN.format(role=ROLE, own=own, what="take it on"))


def _can_take_on(cursor):
    return _allowed(cursor, f'SET LOCAL ROLE "{ROLE}"') and _allowed(cursor, "SET LOCAL ROLE NONE")


def _allowed(cursor, statement):
    try:
        with transaction.atomic(using=cursor.db.alias):
            cursor.execute(statement)
    except DatabaseError:
        return False
    return True


def cascade(table, column, referenced, name=None):
    name = name or f"{table}_{column}_cascades"
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES {referenced} (id) "
        "ON DELETE CASCADE",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


def function(name: str, kind: str, query: str) -> migrations.RunSQL:
    return migrations.RunSQL(
        [
            f"CREATE FUNCTION {name} RETURNS {kind} LANGUAGE plpgsql STABLE SECURITY DEFINER "
            f"AS $$ BEGIN RETURN {query}; END $$",
            # Our tables and no others: whoever calls could have temporary ones of the same names.
            f"DO $$ BEGIN EXECUTE format('ALTER FUNCTION {name} SET search_path = %I, pg_temp', current_schema()); END $$",
            f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC",
            f'GRANT EXECUTE ON FUNCTION {name} TO "{ROLE}"',
        ],
        f"DROP FUNCTION {name}",
    )


def confine(table, seen, deeds):
    return migrations.RunSQL(
        [
            f"CREATE POLICY everybody ON {table} USING (true)",
            f'CREATE POLICY copilot ON {table} AS RESTRICTIVE TO "{ROLE}" USING ({seen})',
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f'GRANT {deeds} ON {table} TO "{ROLE}"',
        ],
        [
            f'REVOKE ALL ON {table} FROM "{ROLE}"',
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
            f"DROP POLICY copilot ON {table}",
            f"DROP POLICY everybody ON {table}",
        ],
    )


class Migration(migrations.Migration):

    replaces = [('conversations', name) for name in REPLACED]

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='MessageTombstone',
            fields=[
                ('dedupe_key', models.UUIDField(primary_key=True, serialize=False)),
                ('expires_at', models.DateTimeField(db_index=True)),
            ],
            options={
                'db_table': 'message_tombstones',
            },
        ),
        migrations.CreateModel(
            name='Client',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=200)),
                ('sub_domain', models.CharField(max_length=63, unique=True, validators=[django.core.validators.RegexValidator('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z', 'A sub-domain is 1 to 63 lower-case letters, digits and hyphens, and neither starts nor ends with a hyphen.')])),
                ('is_active', models.BooleanField(db_default=True, default=True)),
                ('auto_reply', models.BooleanField(db_default=True, default=True, help_text='Whether the assistant answers by itself what people write.')),
                ('default_goal', models.TextField(db_default='Handle inbound enquiry', default='Handle inbound enquiry')),
                ('stale_after', models.DurationField(db_default=datetime.timedelta(seconds=600), default=datetime.timedelta(seconds=600))),
                ('expire_after', models.DurationField(db_default=datetime.timedelta(days=1), default=datetime.timedelta(days=1))),
                ('archive_after', models.DurationField(db_default=datetime.timedelta(days=30), default=datetime.timedelta(days=30))),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('answers_synced', models.BooleanField(db_default=False, default=False, help_text='Whether the assistant also answers what agents record by the sync protocol.')),
                ('hand_back_after', models.DurationField(db_default=datetime.timedelta(seconds=7200), default=datetime.timedelta(seconds=7200))),
                ('longest_wait', models.DurationField(db_default=datetime.timedelta(seconds=6), default=datetime.timedelta(seconds=6))),
                ('quiet_windows', models.JSONField(db_default={'messenger': 1.5, 'orb': 1.5, 'sms': 1.5, 'voice': 0, 'web': 0, 'whatsapp': 1.5}, default=conversations.models.client.default_quiet_windows)),
                ('redact_cards', models.BooleanField(db_default=True, default=True)),
                ('redaction_patterns', models.JSONField(blank=True, db_default=[], default=list, validators=[conversations.models.client.validate_patterns])),
                ('semantic_recall', models.BooleanField(db_default=False, default=False, help_text='Whether the assistant is told, with the first message of a session, of earlier ones about the same.')),
            ],
            options={
                'db_table': 'clients',
                'ordering': ['name'],
                'constraints': [models.CheckConstraint(condition=models.Q(('expire_after__gte', models.F('stale_after')), ('stale_after__gt', datetime.timedelta(0))), name='client_ages_in_order', violation_error_message='A session must become stale after some time, and expire no sooner than that.'), models.CheckConstraint(condition=models.Q(('archive_after__gte', datetime.timedelta(0))), name='client_archives_later'), models.CheckConstraint(condition=models.Q(('longest_wait__gte', datetime.timedelta(0)), ('longest_wait__lte', datetime.timedelta(seconds=600))), name='client_waits_for_bursts_a_while', violation_error_message='A burst is answered within 10 minutes.'), models.CheckConstraint(condition=models.Q(('hand_back_after__gt', datetime.timedelta(0))), name='client_hands_back_later', violation_error_message='A takeover must last some time.'), models.CheckConstraint(condition=models.Q(conversations.models.client._AreSeconds('quiet_windows')), name='client_quiet_windows_are_seconds'), models.CheckConstraint(condition=models.Q(conversations.models.client._AreTexts('redaction_patterns')), name='client_redaction_patterns_are_texts')],
            },
        ),
        migrations.CreateModel(
            name='Assistant',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('key', models.SlugField(max_length=63)),
                ('name', models.CharField(max_length=200)),
                ('is_default', models.BooleanField(default=False)),
                ('system_prompt', models.TextField(default='You are a helpful assistant.')),
                ('engine', models.CharField(choices=[('auto', 'Auto'), ('openai', 'Openai'), ('retell', 'Retell'), ('offline', 'Offline')], default='auto', max_length=20)),
                ('model', models.CharField(blank=True, default='', help_text='Empty: OPENAI_MODEL.', max_length=100)),
                ('temperature', models.FloatField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(2)])),
                ('max_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('history_length', models.PositiveSmallIntegerField(default=10, help_text='How many of the last chunks the model sees.')),
                ('fallback', models.TextField(default='Sorry, I cannot answer right now. A colleague will get back to you.', help_text='Said once when no reply can be written.')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('client', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='assistants', to='conversations.client')),
                ('context_budget', models.PositiveIntegerField(db_default=8000, default=8000, help_text='Tokens that the model is given at most for a reply, by estimate.', validators=[django.core.validators.MinValueValidator(1000), django.core.validators.MaxValueValidator(1000000)])),
                ('in_copilot', models.BooleanField(db_default=False, default=False, help_text="Whether the client's signed-in users may talk to it in the copilot.", verbose_name='in the copilot')),
                ('goodbye_phrases', models.TextField(blank=True, db_default='', default='', help_text='One a line. A message that says no more than one of them ends the session, after a last reply.')),
                ('human_after_failures', models.PositiveSmallIntegerField(db_default=3, default=3, help_text='After so many replies in a row that could not be written, a person has the session. 0: never.')),
                ('human_below_confidence', models.FloatField(blank=True, help_text='From 0 to 1: a reply of which the model is less sure is not sent, and a person has the session. Only for models that give the probabilities of their words. Empty: not asked.', null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1)])),
                ('human_phrases', models.TextField(blank=True, db_default='', default='', help_text='One a line. A customer who says one of them gets a person instead of the assistant.')),
                ('takeover_sentence', models.TextField(blank=True, db_default='A colleague will take it from here.', default='A colleague will take it from here.', help_text='Said when a session goes to a person. Empty: nothing is said.')),
                ('uses_tools', models.BooleanField(db_default=True, default=True, help_text='The model may move steps, set the topic and the current goal, ask for a person, and end a session that the customer has ended. Off for servers that know no tools.')),
                ('greeting', models.TextField(db_default='Hello, how can I help you?', default='Hello, how can I help you?', help_text="What a caller hears first, in the assistant's language.")),
                ('spoken_language', models.CharField(db_default='en-US', default='en-US', help_text='What callers speak and hear: a language tag such as en-US or es-MX.', max_length=20, validators=[django.core.validators.RegexValidator('^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*\\Z', 'Write a language tag such as en-US or es-MX.')])),
                ('voice', models.CharField(blank=True, db_default='', default='', help_text="The provider's name of a voice, such as Polly.Joanna. Empty: the provider's own for the language.", max_length=60, validators=[django.core.validators.RegexValidator('^[A-Za-z0-9.\\-]*\\Z', "Write the provider's name of a voice, such as Polly.Joanna.")])),
                ('template_language', models.CharField(db_default='en', default='en', help_text="The template's language, as WhatsApp writes it: en, en_US, pt_BR.", max_length=10, validators=[django.core.validators.RegexValidator('^[a-z]{2,3}(_[A-Za-z]{2,4})?\\Z', 'A language is written such as en or pt_BR.')])),
                ('template_name', models.CharField(blank=True, db_default='', default='', help_text='Sent on WhatsApp where free text is not taken any more: an approved template without variables.', max_length=512, validators=[django.core.validators.RegexValidator('^[a-z0-9_]+\\Z', "A template's name has small letters, digits and _ alone.")])),
                ('opener', models.CharField(db_default='Hola', default='Hola', help_text='What a Retell agent is told to make it greet a person whom we write to first.', max_length=200)),
                ('retell_agent_id', models.CharField(blank=True, db_default='', default='', help_text='The id of a chat agent there (agent_…), where the engine is retell.', max_length=100, verbose_name='Retell agent')),
            ],
            options={
                'db_table': 'assistants',
                'ordering': ['key'],
                'constraints': [models.UniqueConstraint(fields=('client', 'key'), name='one_assistant_key_per_client'), models.UniqueConstraint(condition=models.Q(('is_default', True)), fields=('client',), name='one_default_assistant_per_client'), models.CheckConstraint(condition=models.Q(('engine__in', ['auto', 'openai', 'retell', 'offline'])), name='assistant_engine_known'), models.CheckConstraint(condition=models.Q(models.Q(('engine', 'retell'), _negated=True), models.Q(('retell_agent_id', ''), _negated=True), _connector='OR'), name='assistant_names_its_retell_agent', violation_error_message='The engine retell needs the id of a Retell agent.')],
            },
        ),
        migrations.CreateModel(
            name='ChannelAccount',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('channel', models.CharField(choices=[('messenger', 'messenger'), ('whatsapp', 'whatsapp'), ('sms', 'sms'), ('orb', 'orb'), ('voice', 'voice'), ('web', 'web')], max_length=10)),
                ('provider', models.CharField(max_length=20)),
                ('address', models.CharField(max_length=200)),
                ('name', models.CharField(blank=True, default='', max_length=200)),
                ('credentials', conversations.models.fields.EncryptedJSONField(blank=True, default=dict, editable=False)),
                ('base_url', models.CharField(blank=True, default='', help_text="Empty: the provider's own.", max_length=300, validators=[django.core.validators.URLValidator(schemes=['http', 'https'])])),
                ('is_active', models.BooleanField(default=True)),
                ('health', models.CharField(choices=[('ok', 'Ok'), ('broken', 'Broken')], db_default='ok', default='ok', max_length=10)),
                ('health_reason', models.CharField(blank=True, db_default='', default='', max_length=300)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('assistant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='conversations.assistant')),
                ('client', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='channel_accounts', to='conversations.client')),
                ('is_simulated', models.BooleanField(db_default=False, default=False, editable=False, help_text='Its provider is the channel simulator: nothing leaves Convo.')),
                ('mended_at', models.DateTimeField(editable=False, null=True)),
            ],
            options={
                'db_table': 'channel_accounts',
                'ordering': ['created_at'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('provider', 'sandbox')), fields=('client', 'channel', 'address'), name='one_sandbox_per_client_and_address'), models.CheckConstraint(condition=models.Q(('channel__in', ['messenger', 'whatsapp', 'sms', 'orb', 'voice', 'web'])), name='account_channel_known'), models.UniqueConstraint(condition=models.Q(('provider', 'sandbox'), _negated=True), fields=('provider', 'address', 'channel'), name='one_account_per_address')],
            },
        ),
        migrations.CreateModel(
            name='ApiKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(default='key', max_length=100)),
                ('prefix', models.CharField(help_text="The key's beginning, to tell keys apart.", max_length=16)),
                ('key_hash', models.BinaryField(max_length=32, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('last_used_at', models.DateTimeField(editable=False, null=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
                ('client', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='api_keys', to='conversations.client')),
            ],
            options={
                'verbose_name': 'API key',
                'db_table': 'api_keys',
                'ordering': ['-created_at'],
            },
        ),
        migrations.CreateModel(
            name='Contact',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('user_id', models.CharField(max_length=200)),
                ('phone', models.CharField(blank=True, max_length=16, null=True)),
                ('name', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('is_guest', models.BooleanField(db_default=True, default=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='contacts', to='conversations.client')),
                ('login', models.ForeignKey(blank=True, db_index=False, editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('opted_out', models.JSONField(blank=True, db_default={}, default=dict, editable=False)),
                ('hold_reason', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('merged_into', models.ForeignKey(blank=True, db_constraint=False, db_index=False, editable=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='aliases', to='conversations.contact')),
                ('known', models.TextField(blank=True, db_default='', default='', editable=False, verbose_name='what staff say is known')),
                ('known_at', models.DateTimeField(editable=False, null=True)),
                ('known_by', models.CharField(blank=True, db_default='', default='', editable=False, max_length=150)),
                ('known_in', models.UUIDField(editable=False, null=True)),
                ('known_until', models.DateTimeField(editable=False, null=True)),
            ],
            options={
                'db_table': 'contacts',
                'indexes': [models.Index(condition=models.Q(('phone__isnull', False)), fields=['client', 'phone'], name='contact_by_phone'), models.Index(condition=models.Q(('phone__isnull', False)), fields=['phone'], name='contact_by_start_of_phone', opclasses=['varchar_pattern_ops']), models.Index(fields=['user_id'], name='contact_by_start_of_user_id', opclasses=['varchar_pattern_ops']), models.Index(condition=models.Q(('opted_out', {}), _negated=True), fields=['client', 'id'], name='contacts_opted_out'), models.Index(condition=models.Q(('merged_into__isnull', False)), fields=['merged_into'], name='contact_aliases')],
                'constraints': [models.UniqueConstraint(fields=('client', 'user_id'), name='one_contact_per_user_id'), models.CheckConstraint(condition=models.Q(('phone__isnull', True), ('phone__regex', '^\\+[1-9][0-9]{5,14}$'), _connector='OR'), name='contact_phone_is_e164'), models.CheckConstraint(condition=models.Q(('phone__isnull', True), ('is_guest', False), _connector='OR'), name='contact_with_phone_is_no_guest'), models.UniqueConstraint(condition=models.Q(('login__isnull', False)), fields=('login', 'client'), name='one_contact_per_login'), models.CheckConstraint(condition=models.Q(('login__isnull', True), ('is_guest', False), _connector='OR'), name='contact_who_signs_in_is_no_guest'), models.CheckConstraint(condition=models.Q(('merged_into__isnull', True), models.Q(('hold_reason', ''), ('is_guest', False), ('login__isnull', True), ('opted_out', {}), ('phone__isnull', True)), _connector='OR'), name='contact_alias_has_nothing_of_its_own')],
            },
        ),
        migrations.CreateModel(
            name='ContactIdentity',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('channel', models.CharField(choices=[('messenger', 'messenger'), ('whatsapp', 'whatsapp'), ('sms', 'sms'), ('orb', 'orb'), ('voice', 'voice'), ('web', 'web')], max_length=10)),
                ('kind', models.CharField(choices=[('phone', 'phone'), ('bsuid', 'bsuid'), ('psid', 'psid'), ('device', 'device'), ('user', 'user')], max_length=10)),
                ('address', models.CharField(max_length=200)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('client', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='conversations.client')),
                ('contact', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='identities', to='conversations.contact')),
            ],
            options={
                'verbose_name_plural': 'contact identities',
                'db_table': 'contact_identities',
                'constraints': [models.UniqueConstraint(fields=('client', 'channel', 'address'), name='one_contact_per_address'), models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"messenger","whatsapp","sms","orb","voice","web"}}\'::text[])', 'channel'), name='identity_channel_known'), models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"phone","bsuid","psid","device","user"}}\'::text[])', 'kind'), name='identity_kind_known')],
            },
        ),
        migrations.CreateModel(
            name='Conversation',
            fields=[
                ('id', models.UUIDField(db_default=django.contrib.postgres.functions.RandomUUID(), default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('channel', models.CharField(choices=[('messenger', 'messenger'), ('whatsapp', 'whatsapp'), ('sms', 'sms'), ('orb', 'orb'), ('voice', 'voice'), ('web', 'web')], max_length=10)),
                ('thread', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('status', models.CharField(choices=[('active', 'Active'), ('stale', 'Stale'), ('expired', 'Expired'), ('closed', 'Closed'), ('archived', 'Archived')], db_default='active', default='active', max_length=10)),
                ('is_guest', models.BooleanField(db_default=False, default=False)),
                ('goal', models.TextField(blank=True, db_default='Handle inbound enquiry', default='Handle inbound enquiry')),
                ('summary', models.TextField(blank=True, db_default='', default='')),
                ('topic', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('current_goal', models.JSONField(blank=True, null=True)),
                ('metadata', models.JSONField(blank=True, db_default={}, default=dict)),
                ('started_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('last_message_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('ended_by', models.CharField(blank=True, choices=[('timeout', 'Timeout'), ('user', 'User'), ('system', 'System'), ('staff', 'Staff')], db_default='', default='', max_length=10)),
                ('end_reason', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('last_position', models.IntegerField(db_default=0, default=0)),
                ('inbound_sequence', models.IntegerField(db_default=0, default=0)),
                ('reply_owed', models.BooleanField(db_default=False, default=False)),
                ('reply_due_at', models.DateTimeField(blank=True, null=True)),
                ('reply_attempts', models.SmallIntegerField(db_default=0, default=0)),
                ('drafts_overtaken', models.SmallIntegerField(db_default=0, default=0)),
                ('fallback_sent', models.BooleanField(db_default=False, default=False)),
                ('taken_over_at', models.DateTimeField(blank=True, null=True)),
                ('needs_staff_since', models.DateTimeField(blank=True, null=True)),
                ('needs_staff_reason', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('assistant', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='conversations.assistant')),
                ('channel_account', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='conversations.channelaccount')),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='conversations', to='conversations.client')),
                ('contact', models.ForeignKey(on_delete=django.db.models.deletion.RESTRICT, related_name='conversations', to='conversations.contact')),
                ('device', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='conversations.contactidentity')),
                ('taken_over_by', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('archived_at', models.DateTimeField(blank=True, null=True)),
                ('remember_attempts', models.SmallIntegerField(db_default=0, default=0)),
                ('remember_due_at', models.DateTimeField(blank=True, null=True)),
                ('remember_error', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('remembered_at', models.DateTimeField(blank=True, null=True)),
                ('extended_until', models.DateTimeField(blank=True, help_text='It does not expire before.', null=True)),
                ('history_from', models.IntegerField(blank=True, help_text='What was said up to this position is not shown to assistants any more.', null=True)),
                ('burst_began_at', models.DateTimeField(blank=True, null=True)),
                ('handed_back_at', models.DateTimeField(blank=True, null=True)),
                ('replies_failed', models.SmallIntegerField(db_default=0, default=0)),
                ('reply_crashes', models.SmallIntegerField(db_default=0, default=0)),
                ('taken_over_name', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('taken_over_until', models.DateTimeField(blank=True, null=True)),
                ('chat_id', models.CharField(blank=True, db_default='', default='', help_text='At Retell.', max_length=100)),
                ('variables', models.JSONField(blank=True, db_default={}, default=dict)),
                ('recalled_at', models.DateTimeField(blank=True, editable=False, help_text='Earlier sessions were looked up by what the first message says.', null=True)),
                ('hold_reason', models.CharField(blank=True, db_default='', default='', max_length=200)),
            ],
            options={
                'db_table': 'conversations',
                'indexes': [models.Index(condition=models.Q(('reply_owed', True)), fields=['id'], name='reply_owed'), models.Index(fields=['client', '-started_at', '-id'], name='conversations_of_client'), models.Index(condition=models.Q(('status__in', ['active', 'stale'])), fields=['client', '-started_at', '-id'], name='open_conversations_of_client'), models.Index(condition=models.Q(('is_guest', True), ('status', 'expired')), fields=['ended_at'], name='expired_guests'), models.Index(condition=models.Q(('needs_staff_since__isnull', False)), fields=['client', 'needs_staff_since'], name='needs_staff'), models.Index(condition=models.Q(('remember_due_at__isnull', False)), fields=['remember_due_at'], name='to_be_remembered'), models.Index(condition=models.Q(('archived_at__isnull', True), ('remembered_at__isnull', False)), fields=['ended_at'], name='to_be_archived'), models.Index(fields=['-started_at', '-id'], name='conversations_newest'), models.Index(fields=['status', '-started_at', '-id'], name='conversations_by_status'), models.Index(fields=['channel', '-started_at', '-id'], name='conversations_by_channel')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('status__in', ['active', 'stale'])), fields=('contact', 'channel', 'thread'), name='one_open_conversation'), models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"active","stale","expired","closed","archived"}}\'::text[])', 'status'), name='conversation_status_known'), models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"messenger","whatsapp","sms","orb","voice","web"}}\'::text[])', 'channel'), name='conversation_channel_known'), models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"","timeout","user","system","staff"}}\'::text[])', 'ended_by'), name='conversation_ended_by_known'), models.CheckConstraint(condition=conversations.models.checks.Rule('LEAST({0}, {1}, {2}) >= 0', 'last_position', 'inbound_sequence', 'history_from'), name='conversation_counts_from_zero'), models.CheckConstraint(condition=conversations.models.checks.Rule('LEAST({0}, {1}, {2}, {3}, {4}) >= 0', 'remember_attempts', 'reply_attempts', 'reply_crashes', 'replies_failed', 'drafts_overtaken'), name='conversation_tries_from_zero'), models.CheckConstraint(condition=conversations.models.checks.Rule("({0} IS NULL) = ({1} = ANY ('{{active,stale}}'::text[])) AND ({0} IS NULL) = ({2} = '')", 'ended_at', 'status', 'ended_by'), name='conversation_ended_when_not_open'), models.CheckConstraint(condition=conversations.models.checks.Rule('NOT {0} OR {1} IS NOT NULL AND {2} IS NULL', 'reply_owed', 'reply_due_at', 'ended_at'), name='conversation_owes_replies_only_while_open'), models.CheckConstraint(condition=conversations.models.checks.Rule("{0} IS NOT NULL OR num_nonnulls({1}, {2}) = 0 AND {3} = ''", 'taken_over_at', 'taken_over_until', 'taken_over_by', 'taken_over_name'), name='conversation_taken_over_for_a_time'), models.CheckConstraint(condition=conversations.models.checks.Rule("{0} = '' OR {1} = ANY ('{{voice,web}}'::text[])", 'thread', 'channel'), name='conversation_thread_only_where_channels_have_them')],
            },
        ),
        migrations.CreateModel(
            name='Chunk',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.IntegerField()),
                ('role', models.CharField(choices=[('system', 'System'), ('user', 'User'), ('ai', 'Ai'), ('memory', 'Memory'), ('voice', 'Voice')], max_length=10)),
                ('content', models.TextField()),
                ('message_id', models.TextField(blank=True, db_default='', default='')),
                ('dedupe_key', models.UUIDField(blank=True, editable=False, null=True)),
                ('metadata', models.JSONField(blank=True, db_default={}, default=dict)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('author', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('conversation', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='chunks', to='conversations.conversation')),
            ],
            options={
                'db_table': 'conversation_chunks',
                'ordering': ['position'],
                'indexes': [models.Index(condition=models.Q(('role__in', ['user', 'voice', 'ai'])), fields=['created_at'], name='said_of_late')],
                'constraints': [models.UniqueConstraint(fields=('conversation', 'position'), name='one_position_once'), models.UniqueConstraint(condition=models.Q(('dedupe_key__isnull', False)), fields=('dedupe_key',), name='one_message_once'), models.CheckConstraint(condition=models.Q(('position__gte', 1)), name='chunk_position_from_one'), models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"system","user","ai","memory","voice"}}\'::text[])', 'role'), name='chunk_role_known')],
            },
        ),
        migrations.CreateModel(
            name='ConversationEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(max_length=40)),
                ('from_status', models.CharField(blank=True, db_default='', default='', max_length=10)),
                ('to_status', models.CharField(blank=True, db_default='', default='', max_length=10)),
                ('cause', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('actor', models.CharField(choices=[('contact', 'Contact'), ('assistant', 'Assistant'), ('staff', 'Staff'), ('api', 'Api'), ('system', 'System')], max_length=10)),
                ('actor_name', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('data', models.JSONField(blank=True, db_default={}, default=dict)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('conversation', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='events', to='conversations.conversation')),
            ],
            options={
                'db_table': 'conversation_events',
                'ordering': ['id'],
                'constraints': [models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"contact","assistant","staff","api","system"}}\'::text[])', 'actor'), name='event_actor_known')],
            },
        ),
        migrations.CreateModel(
            name='InboundEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.CharField(max_length=20)),
                ('kind', models.CharField(max_length=40)),
                ('reason', models.CharField(max_length=40)),
                ('message_id', models.TextField(blank=True, default='')),
                ('raw', models.JSONField(default=dict)),
                ('received_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('channel_account', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.channelaccount')),
                ('client', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='inbound_events', to='conversations.client')),
                ('address', models.CharField(blank=True, db_default='', default='', max_length=255)),
                ('attempts', models.PositiveSmallIntegerField(db_default=0, default=0)),
                ('channel', models.CharField(blank=True, db_default='', default='', max_length=10)),
                ('outcome', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('retry_at', models.DateTimeField(null=True)),
                ('settled_at', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'inbound_events',
                'ordering': ['-id'],
                'indexes': [models.Index(condition=models.Q(('reason', 'receipt_unmatched')), fields=['channel_account', 'message_id'], name='early_receipts'), models.Index(fields=['reason', '-id'], name='events_by_reason'), models.Index(fields=['received_at'], name='events_by_age'), models.Index(condition=models.Q(('reason', 'processing_failed'), ('settled_at__isnull', True)), fields=['retry_at'], name='events_to_retry')],
            },
        ),
        migrations.CreateModel(
            name='Membership',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('role', models.CharField(choices=[('viewer', 'Viewer'), ('agent', 'Agent'), ('manager', 'Manager')], default='viewer', max_length=10)),
                ('client', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to='conversations.client')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to=settings.AUTH_USER_MODEL)),
                ('sees_receipts', models.BooleanField(db_default=False, default=False, help_text='What the model was given for each reply, system prompt and all. Managers always see it.', verbose_name='sees context receipts')),
            ],
            options={
                'db_table': 'memberships',
                'constraints': [models.UniqueConstraint(fields=('client', 'user'), name='one_membership_per_client'), models.CheckConstraint(condition=models.Q(('role__in', ['viewer', 'agent', 'manager'])), name='membership_role_known')],
            },
        ),
        migrations.CreateModel(
            name='Message',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('part', models.PositiveSmallIntegerField(default=1)),
                ('parts', models.PositiveSmallIntegerField(default=1)),
                ('to_address', models.CharField(max_length=200)),
                ('to_kind', models.CharField(choices=[('phone', 'phone'), ('bsuid', 'bsuid'), ('psid', 'psid'), ('device', 'device'), ('user', 'user')], max_length=10)),
                ('text', models.TextField()),
                ('status', models.CharField(choices=[('queued', 'Queued'), ('claimed', 'Claimed'), ('sending', 'Sending'), ('unknown', 'Unknown'), ('sent', 'Sent'), ('delivered', 'Delivered'), ('read', 'Read'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], db_default='queued', default='queued', max_length=10)),
                ('attempts', models.PositiveSmallIntegerField(db_default=0, default=0)),
                ('due_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('lease_until', models.DateTimeField(null=True)),
                ('lease_token', models.UUIDField(null=True)),
                ('provider_message_id', models.TextField(blank=True, db_default='', default='')),
                ('code', models.CharField(blank=True, db_default='', default='', max_length=40)),
                ('reason', models.CharField(blank=True, db_default='', default='', max_length=500)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('sending_at', models.DateTimeField(null=True)),
                ('sent_at', models.DateTimeField(null=True)),
                ('delivered_at', models.DateTimeField(null=True)),
                ('read_at', models.DateTimeField(null=True)),
                ('failed_at', models.DateTimeField(null=True)),
                ('channel_account', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='conversations.channelaccount')),
                ('chunk', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='messages', to='conversations.chunk')),
                ('conversation', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='messages', to='conversations.conversation')),
                ('unconditional', models.BooleanField(db_default=False, default=False)),
                ('receipt_sequence', models.PositiveIntegerField(null=True)),
                ('reply_to', models.TextField(blank=True, db_default='', default='')),
                ('template', models.CharField(blank=True, db_default='', default='', max_length=540)),
            ],
            options={
                'db_table': 'conversation_messages',
                'ordering': ['chunk_id', 'part'],
                'indexes': [models.Index(condition=models.Q(('status__in', ['queued', 'claimed', 'sending', 'unknown'])), fields=['conversation', 'chunk', 'part'], name='messages_unsettled'), models.Index(condition=models.Q(('status', 'failed')), fields=['failed_at'], name='messages_failed')],
                'constraints': [models.UniqueConstraint(fields=('chunk', 'part'), name='one_part_once'), models.UniqueConstraint(condition=models.Q(('provider_message_id', ''), _negated=True), fields=('channel_account', 'provider_message_id'), name='one_provider_message_once'), models.CheckConstraint(condition=models.Q(('part__gte', 1), ('part__lte', models.F('parts'))), name='message_part_of_parts'), models.CheckConstraint(condition=conversations.models.checks.Rule('{0} = ANY (\'{{"queued","claimed","sending","unknown","sent","delivered","read","failed","cancelled"}}\'::text[])', 'status'), name='message_status_known')],
            },
        ),
        migrations.CreateModel(
            name='Step',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('description', models.TextField()),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('complete', 'Complete'), ('cancelled', 'Cancelled')], db_default='pending', default='pending', max_length=10)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('updated_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('conversation', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='steps', to='conversations.conversation')),
                ('rank', models.PositiveIntegerField(db_default=0, default=0)),
                ('by_assistant', models.BooleanField(db_default=False, default=False)),
            ],
            options={
                'db_table': 'conversation_steps',
                'ordering': ['rank', 'id'],
                'constraints': [models.CheckConstraint(condition=models.Q(('status__in', ['pending', 'complete', 'cancelled'])), name='step_status_known')],
            },
        ),
        migrations.CreateModel(
            name='Turn',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('status', models.CharField(choices=[('running', 'Running'), ('committed', 'Committed'), ('overtaken', 'Overtaken'), ('dropped', 'Dropped'), ('failed', 'Failed'), ('abandoned', 'Abandoned')], db_default='running', default='running', max_length=10)),
                ('attempt', models.PositiveSmallIntegerField()),
                ('inbound_sequence', models.PositiveIntegerField(help_text='The newest message of the person that it saw.')),
                ('lease_until', models.DateTimeField()),
                ('started_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('ended_at', models.DateTimeField(null=True)),
                ('engine', models.CharField(blank=True, default='', max_length=20)),
                ('model', models.CharField(blank=True, default='', max_length=100)),
                ('prompt', models.JSONField(null=True)),
                ('draft', models.TextField(blank=True, default='')),
                ('finish_reason', models.CharField(blank=True, default='', max_length=20)),
                ('tokens_in', models.PositiveIntegerField(default=0)),
                ('tokens_out', models.PositiveIntegerField(default=0)),
                ('code', models.CharField(blank=True, default='', max_length=40)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('chunk', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='conversations.chunk')),
                ('conversation', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='turns', to='conversations.conversation')),
                ('cost', models.DecimalField(decimal_places=8, help_text='US dollars, by MODEL_PRICES at the time.', max_digits=14, null=True)),
                ('first_token_ms', models.PositiveIntegerField(help_text='Null: the reply came as a whole.', null=True)),
                ('last_token_ms', models.PositiveIntegerField(null=True)),
                ('stop_asked_at', models.DateTimeField(null=True)),
                ('streamed', models.BooleanField(db_default=False, default=False)),
                ('confidence', models.FloatField(null=True)),
                ('rule', models.CharField(blank=True, db_default='', default='', max_length=20)),
                ('tool_calls', models.JSONField(null=True)),
            ],
            options={
                'db_table': 'conversation_turns',
                'ordering': ['started_at'],
                'indexes': [models.Index(condition=models.Q(('status', 'failed')), fields=['ended_at'], name='turns_failed'), models.Index(condition=models.Q(('status', 'running'), ('streamed', True)), fields=['lease_until'], name='streamed_turns_running')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('status', 'running')), fields=('conversation',), name='one_running_turn'), models.CheckConstraint(condition=models.Q(('status__in', ['running', 'committed', 'overtaken', 'dropped', 'failed', 'abandoned'])), name='turn_status_known')],
            },
        ),
        migrations.CreateModel(
            name='StaffAction',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('user_name', models.CharField(max_length=150)),
                ('verb', models.CharField(max_length=40)),
                ('object_type', models.CharField(max_length=40)),
                ('object_id', models.CharField(max_length=40)),
                ('object_name', models.CharField(max_length=200)),
                ('changes', models.JSONField(default=dict)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('client', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
                ('user', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'db_table': 'staff_actions',
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['client', '-id'], name='staff_actions_of_client'), models.Index(fields=['object_type', 'object_id', '-id'], name='staff_actions_on_object')],
            },
        ),
        migrations.CreateModel(
            name='Correction',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('correction', 'Correction'), ('redaction', 'Redaction')], max_length=10)),
                ('text', models.TextField(blank=True, default='')),
                ('reason', models.CharField(blank=True, default='', max_length=200)),
                ('author_name', models.CharField(blank=True, default='', max_length=150)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('author', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('chunk', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='corrections', to='conversations.chunk')),
            ],
            options={
                'db_table': 'chunk_corrections',
                'ordering': ['id'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('kind', 'redaction')), fields=('chunk',), name='one_redaction_per_chunk'), models.CheckConstraint(condition=models.Q(('kind__in', ['correction', 'redaction'])), name='correction_kind_known')],
            },
        ),
        migrations.CreateModel(
            name='BulkJob',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('close', 'Close'), ('assign', 'Assign'), ('archive', 'Archive')], max_length=10)),
                ('reason', models.CharField(blank=True, default='', max_length=200)),
                ('sessions', django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), size=None)),
                ('handled', models.PositiveIntegerField(default=0)),
                ('changed', models.PositiveIntegerField(default=0)),
                ('refused', models.PositiveIntegerField(default=0)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('ended_at', models.DateTimeField(null=True)),
                ('assistant', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.assistant')),
                ('user', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'db_table': 'bulk_jobs',
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ['close', 'assign', 'archive'])), name='bulk_job_kind_known')],
            },
        ),
        migrations.CreateModel(
            name='IdempotencyKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=255)),
                ('fingerprint', models.BinaryField(max_length=32)),
                ('status', models.PositiveSmallIntegerField(default=0)),
                ('answer', models.TextField(default='')),
                ('expires_at', models.DateTimeField(db_index=True)),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
                ('conversation', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='conversations.conversation')),
            ],
            options={
                'db_table': 'idempotency_keys',
                'constraints': [models.UniqueConstraint(fields=('client', 'key'), name='one_answer_per_key')],
            },
        ),
        migrations.CreateModel(
            name='RollingSummary',
            fields=[
                ('conversation', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='rolling_summary', serialize=False, to='conversations.conversation')),
                ('upto', models.PositiveIntegerField(default=0, help_text='The position of the newest entry that it covers.')),
                ('wanted', models.PositiveIntegerField(default=0, help_text='The position up to which it should.')),
                ('version', models.PositiveIntegerField(default=0)),
                ('due_at', models.DateTimeField(null=True)),
                ('attempts', models.PositiveSmallIntegerField(default=0, help_text='Begun since the last that succeeded.')),
                ('error', models.CharField(blank=True, default='', max_length=40)),
            ],
            options={
                'verbose_name_plural': 'rolling summaries',
                'db_table': 'conversation_summaries',
                'indexes': [models.Index(condition=models.Q(('due_at__isnull', False)), fields=['due_at'], name='to_be_summarised')],
            },
        ),
        migrations.CreateModel(
            name='SimulatedFault',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('misbehaviour', models.CharField(max_length=20)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.channelaccount')),
            ],
            options={
                'db_table': 'simulated_faults',
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='SimulatedExchange',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('message', 'Message'), ('receipt', 'Receipt'), ('call', 'Call'), ('hang_up', 'Hang Up'), ('continuation', 'Continuation'), ('send', 'Send'), ('question', 'Question')], max_length=20)),
                ('person', models.PositiveSmallIntegerField(default=0)),
                ('message_id', models.TextField(blank=True, default='')),
                ('text', models.TextField(blank=True, default='')),
                ('note', models.CharField(blank=True, default='', max_length=200)),
                ('details', models.JSONField(default=dict)),
                ('method', models.CharField(max_length=10)),
                ('address', models.TextField()),
                ('headers', models.JSONField(default=dict)),
                ('content_type', models.CharField(blank=True, default='', max_length=100)),
                ('body', models.TextField(blank=True, default='')),
                ('status', models.PositiveSmallIntegerField(null=True)),
                ('answer_headers', models.JSONField(default=dict)),
                ('answer', models.TextField(blank=True, default='')),
                ('problem', models.CharField(blank=True, default='', max_length=200)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('sent_at', models.DateTimeField(null=True)),
                ('answered_at', models.DateTimeField(null=True)),
                ('account', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.channelaccount')),
            ],
            options={
                'db_table': 'simulated_exchanges',
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['account', '-id'], name='exchanges_of_account')],
            },
        ),
        migrations.CreateModel(
            name='AgentState',
            fields=[
                ('conversation', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='agent_state', serialize=False, to='conversations.conversation')),
                ('local_id', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('bot_id', models.CharField(blank=True, db_default='', default='', help_text='Where it is no assistant of ours.', max_length=200)),
                ('intent', models.CharField(choices=[('menu', 'Menu'), ('order', 'Order'), ('support', 'Support'), ('info', 'Info'), ('payment', 'Payment'), ('delivery', 'Delivery'), ('idle', 'Idle')], db_default='idle', default='idle', max_length=10)),
                ('step', models.CharField(db_default='initial', default='initial', max_length=200)),
                ('previous_intent', models.CharField(blank=True, choices=[('menu', 'Menu'), ('order', 'Order'), ('support', 'Support'), ('info', 'Info'), ('payment', 'Payment'), ('delivery', 'Delivery'), ('idle', 'Idle')], db_default='', default='', max_length=10)),
                ('previous_step', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('context', models.JSONField(blank=True, db_default={}, default=dict)),
                ('current_order_id', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('version', models.PositiveIntegerField(db_default=0, default=0)),
                ('updated_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
            ],
            options={
                'db_table': 'conversation_states',
                'constraints': [models.CheckConstraint(condition=models.Q(('intent__in', ['menu', 'order', 'support', 'info', 'payment', 'delivery', 'idle']), ('previous_intent__in', ['', 'menu', 'order', 'support', 'info', 'payment', 'delivery', 'idle'])), name='state_intents_known')],
            },
        ),
        migrations.CreateModel(
            name='OrderLink',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('order_id', models.CharField(max_length=200)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('conversation', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='orders', to='conversations.conversation')),
            ],
            options={
                'db_table': 'conversation_orders',
                'ordering': ['id'],
                'constraints': [models.UniqueConstraint(fields=('conversation', 'order_id'), name='one_order_once')],
            },
        ),
        migrations.CreateModel(
            name='Delta',
            fields=[
                ('pk', models.CompositePrimaryKey('turn_id', 'attempt', 'start', blank=True, editable=False, primary_key=True, serialize=False)),
                ('turn', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='deltas', to='conversations.turn')),
                ('attempt', models.PositiveSmallIntegerField()),
                ('start', models.PositiveIntegerField()),
                ('text', models.TextField()),
                ('login_id', models.IntegerField(null=True)),
            ],
            options={
                'db_table': 'copilot_deltas',
            },
        ),
        migrations.CreateModel(
            name='Feedback',
            fields=[
                ('chunk', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='feedback', serialize=False, to='conversations.chunk')),
                ('conversation', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='feedback', to='conversations.conversation')),
                ('rating', models.CharField(choices=[('up', 'Up'), ('down', 'Down')], max_length=4)),
                ('note', models.TextField(blank=True, db_default='', default='')),
                ('given_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'verbose_name_plural': 'feedback',
                'db_table': 'copilot_feedback',
                'ordering': ['-given_at'],
                'indexes': [models.Index(fields=['-given_at'], name='feedback_by_age')],
                'constraints': [models.CheckConstraint(condition=models.Q(('rating__in', ['up', 'down'])), name='rating_known')],
            },
        ),
        migrations.CreateModel(
            name='RefusedWebhooks',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('channel', models.CharField(max_length=10)),
                ('provider', models.CharField(max_length=20)),
                ('day', models.DateField()),
                ('count', models.PositiveBigIntegerField(default=0)),
                ('last_at', models.DateTimeField()),
                ('channel_account', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='refused', to='conversations.channelaccount')),
            ],
            options={
                'verbose_name_plural': 'refused webhooks',
                'db_table': 'refused_webhooks',
                'ordering': ['-day', '-last_at'],
                'constraints': [models.UniqueConstraint(fields=('channel', 'provider', 'channel_account', 'day'), name='one_count_a_day', nulls_distinct=False)],
            },
        ),
        migrations.CreateModel(
            name='CallAnswer',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=40)),
                ('then', models.CharField(choices=[('listen', 'listen'), ('wait', 'wait'), ('hang_up', 'hang_up')], max_length=10)),
                ('phrase', models.CharField(blank=True, default='', max_length=20)),
                ('first_position', models.PositiveIntegerField(default=0)),
                ('last_position', models.PositiveIntegerField(default=0)),
                ('turn', models.PositiveSmallIntegerField(default=0)),
                ('again', models.PositiveSmallIntegerField(default=0)),
                ('waited', models.PositiveSmallIntegerField(default=0)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('conversation', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='call_answers', to='conversations.conversation')),
            ],
            options={
                'db_table': 'conversation_call_answers',
                'constraints': [models.UniqueConstraint(fields=('conversation', 'key'), name='one_answer_per_request'), models.CheckConstraint(condition=models.Q(('then__in', ['listen', 'wait', 'hang_up'])), name='call_answer_then_known')],
            },
        ),
        migrations.CreateModel(
            name='SendPause',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('to_address', models.CharField(blank=True, default='', max_length=200)),
                ('until', models.DateTimeField()),
                ('times', models.PositiveSmallIntegerField(default=1)),
                ('channel_account', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.channelaccount')),
            ],
            options={
                'db_table': 'send_pauses',
                'constraints': [models.UniqueConstraint(fields=('channel_account', 'to_address'), name='one_pause_per_account_and_address')],
            },
        ),
        migrations.CreateModel(
            name='EngineChat',
            fields=[
                ('chat_id', models.CharField(max_length=100, primary_key=True, serialize=False)),
                ('agent_id', models.CharField(max_length=100)),
                ('status', models.CharField(choices=[('ongoing', 'Ongoing'), ('ended', 'Ended'), ('replaced', 'Replaced')], default='ongoing', max_length=10)),
                ('told', models.PositiveIntegerField(default=0)),
                ('turns', models.PositiveIntegerField(default=0)),
                ('asked', models.PositiveIntegerField(null=True)),
                ('ended_by_agent', models.BooleanField(default=False)),
                ('analysis', models.JSONField(null=True)),
                ('due_at', models.DateTimeField(null=True)),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('ended_at', models.DateTimeField(null=True)),
                ('conversation', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='chats', to='conversations.conversation')),
            ],
            options={
                'db_table': 'engine_chats',
                'ordering': ['created_at'],
                'indexes': [models.Index(condition=models.Q(('due_at__isnull', False)), fields=['due_at'], name='chats_to_be_settled')],
                'constraints': [models.CheckConstraint(condition=models.Q(('status__in', ['ongoing', 'ended', 'replaced'])), name='engine_chat_status_known')],
            },
        ),
        migrations.CreateModel(
            name='Erasure',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('asked_by_name', models.CharField(max_length=150)),
                ('contact', models.UUIDField(null=True)),
                ('sessions', django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None)),
                ('removed', models.JSONField(default=dict)),
                ('problem', models.CharField(blank=True, default='', max_length=200)),
                ('certificate', models.TextField(blank=True, default='')),
                ('begun_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('finished_at', models.DateTimeField(null=True)),
                ('asked_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('client', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
                ('vectors', models.JSONField(default=list)),
            ],
            options={
                'db_table': 'erasures',
                'ordering': ['-begun_at', '-id'],
                'indexes': [models.Index(condition=models.Q(('sessions', []), _negated=True), fields=['begun_at'], name='erasures_to_go_on_with')],
                'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('certificate', ''), ('finished_at__isnull', True)), models.Q(('finished_at__isnull', False), models.Q(('certificate', ''), _negated=True)), _connector='OR'), name='erasure_finished_with_its_certificate')],
            },
        ),
        migrations.CreateModel(
            name='ContactMatch',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('evidence', models.CharField(choices=[('same_phone', 'both have the same phone'), ('same_message', 'one message named an address of each')], max_length=20)),
                ('channel', models.CharField(blank=True, db_default='', default='', max_length=10)),
                ('message_id', models.TextField(blank=True, db_default='', default='')),
                ('found_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('state', models.CharField(choices=[('open', 'Open'), ('merged', 'Merged'), ('dismissed', 'Dismissed')], db_default='open', default='open', max_length=10)),
                ('decided_by_name', models.CharField(blank=True, db_default='', default='', max_length=150)),
                ('decided_at', models.DateTimeField(null=True)),
                ('moved', models.JSONField(db_default={}, default=dict)),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
                ('decided_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('first', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='conversations.contact')),
                ('second', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='conversations.contact')),
            ],
            options={
                'verbose_name_plural': 'contact matches',
                'db_table': 'contact_matches',
                'ordering': ['-found_at', '-id'],
                'indexes': [models.Index(fields=['client', '-found_at'], name='matches_of_client')],
                'constraints': [models.UniqueConstraint(fields=('first', 'second'), name='one_match_per_pair'), models.CheckConstraint(condition=models.Q(('first__lt', models.F('second'))), name='match_in_order'), models.CheckConstraint(condition=models.Q(('evidence__in', ['same_phone', 'same_message'])), name='match_evidence_known'), models.CheckConstraint(condition=models.Q(models.Q(('decided_at__isnull', True), ('state', 'open')), models.Q(('decided_at__isnull', False), ('state__in', ['merged', 'dismissed'])), _connector='OR'), name='match_state_known')],
            },
        ),
        migrations.CreateModel(
            name='SignInTries',
            fields=[
                ('who', models.BinaryField(max_length=16, primary_key=True, serialize=False)),
                ('count', models.PositiveIntegerField()),
                ('until', models.DateTimeField()),
            ],
            options={
                'db_table': 'sign_in_tries',
            },
        ),
        migrations.CreateModel(
            name='RetentionPolicy',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('rule', models.CharField(choices=[('guests', 'Expired sessions of guests, after their end'), ('web', 'Open sessions on the web, after the last message'), ('sessions', 'Ended sessions and what memory has of them, after their end'), ('memory', 'What memory has of ended sessions (archived transcripts), after their end'), ('turns', "What the model was given and wrote (turns), after the session's end"), ('receipts', "Sends and their receipts, after the session's end"), ('events', 'Raw payloads that became no message, after they arrived')], max_length=10)),
                ('channel', models.CharField(blank=True, choices=[('messenger', 'messenger'), ('whatsapp', 'whatsapp'), ('sms', 'sms'), ('orb', 'orb'), ('voice', 'voice'), ('web', 'web')], default='', max_length=10)),
                ('status', models.CharField(blank=True, choices=[('closed', 'closed'), ('expired', 'expired'), ('archived', 'archived')], default='', max_length=10)),
                ('days', models.PositiveIntegerField()),
                ('client', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='retention_policies', to='conversations.client')),
            ],
            options={
                'verbose_name_plural': 'retention policies',
                'db_table': 'retention_policies',
                'ordering': ['client', 'rule', 'channel', 'status'],
                'constraints': [models.UniqueConstraint(fields=('client', 'rule', 'channel', 'status'), name='one_retention_policy_a_place'), models.CheckConstraint(condition=models.Q(('rule__in', ['guests', 'web', 'sessions', 'memory', 'turns', 'receipts', 'events'])), name='retention_rule_known'), models.CheckConstraint(condition=models.Q(('channel__in', ['', 'messenger', 'whatsapp', 'sms', 'orb', 'voice', 'web'])), name='retention_channel_known'), models.CheckConstraint(condition=models.Q(('status', ''), models.Q(('rule__in', ['sessions', 'turns', 'receipts']), ('status__in', ('closed', 'expired', 'archived'))), _connector='OR'), name='retention_status_only_where_it_matters'), models.CheckConstraint(condition=models.Q(('days__lte', 36500)), name='retention_days_possible')],
            },
        ),
        migrations.CreateModel(
            name='RetentionReport',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('run', models.UUIDField(default=uuid.uuid4)),
                ('by', models.CharField(max_length=150)),
                ('started_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('ended_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('lines', models.JSONField(default=list)),
                ('client', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.client')),
            ],
            options={
                'db_table': 'retention_reports',
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['client', '-id'], name='retention_reports_of_client')],
            },
        ),
        migrations.CreateModel(
            name='EngineChatRemoval',
            fields=[
                ('chat_id', models.CharField(max_length=100, primary_key=True, serialize=False)),
                ('due_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('attempts', models.PositiveSmallIntegerField(db_default=0, default=0)),
                ('error', models.CharField(blank=True, db_default='', default='', max_length=40)),
                ('removed_at', models.DateTimeField(null=True)),
                ('erasure', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='chats', to='conversations.erasure')),
            ],
            options={
                'db_table': 'engine_chat_removals',
                'indexes': [models.Index(condition=models.Q(('removed_at__isnull', True)), fields=['due_at'], name='chats_to_be_removed')],
            },
        ),
        *(cascade(*row) for row in CASCADES),
        *(cascade(table, column, "contacts", f"{table}_{column}_fk") for table, column in CASCADES_OF_CONTACTS),
        # Room on each page, so that appending to a session stays a heap-only update.
        migrations.RunSQL(
            "ALTER TABLE conversations SET (fillfactor = 80)", "ALTER TABLE conversations RESET (fillfactor)"
        ),
        migrations.RunPython(make_role, migrations.RunPython.noop),
        *(function(name, *how) for name, how in FUNCTIONS.items()),
        *(confine(table, *how) for table, how in CONFINED.items()),
    ]
