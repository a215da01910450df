"""Help texts and labels speak of conversations. The tables do not change."""

import datetime
import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0039_sweep_by_beginning'),
    ]

    operations = [
        migrations.AlterField(
            model_name='assistant',
            name='goodbye_phrases',
            field=models.TextField(blank=True, db_default='', default='', help_text='One a line. A message that says no more than one of them ends the conversation, after a last reply.'),
        ),
        migrations.AlterField(
            model_name='assistant',
            name='human_after_failures',
            field=models.PositiveSmallIntegerField(db_default=3, default=3, help_text='After so many replies in a row that could not be written, the conversation goes to a person. 0: never.'),
        ),
        migrations.AlterField(
            model_name='assistant',
            name='human_below_confidence',
            field=models.FloatField(blank=True, help_text='From 0 to 1: a reply of which the model is less sure is not sent, and the conversation goes to a person. Only for models that give the probabilities of their words. Empty: not asked.', null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1)]),
        ),
        migrations.AlterField(
            model_name='assistant',
            name='takeover_sentence',
            field=models.TextField(blank=True, db_default='A colleague will take it from here.', default='A colleague will take it from here.', help_text='Said when a conversation goes to a person. Empty: nothing is said.'),
        ),
        migrations.AlterField(
            model_name='assistant',
            name='uses_tools',
            field=models.BooleanField(db_default=True, default=True, help_text='The model may move steps, set the topic and the current goal, ask for a person, and end a conversation that the customer has ended. Off for servers that know no tools.'),
        ),
        migrations.AlterField(
            model_name='client',
            name='semantic_recall',
            field=models.BooleanField(db_default=False, default=False, help_text='With the first message of a conversation, tell the assistant of earlier ones on the same subject.'),
        ),
        migrations.AlterField(
            model_name='conversation',
            name='recalled_at',
            field=models.DateTimeField(blank=True, editable=False, help_text='When earlier conversations on the subject of the first message were looked up.', null=True),
        ),
        migrations.AlterField(
            model_name='membership',
            name='sees_receipts',
            field=models.BooleanField(db_default=False, default=False, help_text='The messages and the system prompt that each reply was written from. Managers always see them.', verbose_name='sees what the model was given'),
        ),
        migrations.AlterField(
            model_name='retentionpolicy',
            name='rule',
            field=models.CharField(choices=[('guests', 'Expired conversations of guests, after their end'), ('web', 'Open conversations on the web, after the last message'), ('sessions', 'Ended conversations and what memory has of them, after their end'), ('memory', 'What memory has of ended conversations (archived transcripts), after their end'), ('turns', "What the model was given and wrote (turns), after the conversation's end"), ('receipts', "Sends and their receipts, after the conversation's end"), ('events', 'Raw payloads that became no message, after they arrived')], max_length=10),
        ),
        migrations.AlterConstraint(
            model_name='client',
            name='client_ages_in_order',
            constraint=models.CheckConstraint(condition=models.Q(('expire_after__gte', models.F('stale_after')), ('stale_after__gt', datetime.timedelta(0))), name='client_ages_in_order', violation_error_message='A conversation must become stale after some time, and expire no sooner than that.'),
        ),
    ]
