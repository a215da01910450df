from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0027_limit_sign_ins'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='feedback',
            index=models.Index(fields=['-given_at'], name='feedback_by_age'),
        ),
    ]
