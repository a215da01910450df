from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0025_confine_the_copilot_at_less_cost'),
    ]

    operations = [
        migrations.AddField(
            model_name='channelaccount',
            name='mended_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
    ]
