from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0029_recall_at_the_opening'),
    ]

    operations = [
        migrations.AddField(
            model_name='channelaccount',
            name='mended_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
    ]
