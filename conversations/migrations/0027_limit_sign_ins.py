from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0026_say_when_an_account_was_mended'),
    ]

    operations = [
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
    ]
