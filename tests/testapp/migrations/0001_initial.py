import django.db.models.deletion
import usage_tracking.models
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Organization',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('usage_plan', models.CharField(blank=True, default='', max_length=64, validators=[usage_tracking.models.validate_usage_plan], verbose_name='usage plan')),
                ('usage_features', models.JSONField(blank=True, default=dict, help_text="On top of the plan's: {name: true, false, a string or a number}.", validators=[usage_tracking.models.validate_usage_features], verbose_name='usage features')),
                ('usage_limits', models.JSONField(blank=True, default=dict, help_text="Instead of the plan's: {meter: whole number, or null for unlimited}.", validators=[usage_tracking.models.validate_usage_limits], verbose_name='usage limits')),
                ('usage_reset_mode', models.CharField(blank=True, choices=[('lazy', 'lazy'), ('scheduled', 'scheduled'), ('manual', 'manual')], default='', max_length=16, verbose_name='usage reset mode')),
                ('usage_reset_period', models.CharField(blank=True, choices=[('hourly', 'hourly'), ('daily', 'daily'), ('weekly', 'weekly'), ('monthly', 'monthly'), ('quarterly', 'quarterly'), ('yearly', 'yearly')], default='', max_length=16, verbose_name='usage reset period')),
                ('usage_anchor', models.CharField(blank=True, default='', help_text='Where periods are stepped from, ISO 8601: an instant, or without offset a wall time in the zone.', max_length=40, validators=[usage_tracking.models.validate_usage_anchor], verbose_name='usage anchor')),
                ('usage_time_zone', models.CharField(blank=True, default='', help_text='An IANA name, like Europe/Berlin.', max_length=64, validators=[usage_tracking.models.validate_usage_time_zone], verbose_name='usage time zone')),
                ('usage_enforcement', models.CharField(blank=True, choices=[('hard', 'hard'), ('soft', 'soft'), ('shadow', 'shadow')], default='', max_length=16, verbose_name='usage enforcement')),
                ('name', models.CharField(max_length=100)),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='Membership',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('role', models.CharField(choices=[('member', 'Member'), ('manager', 'Manager')], default='member', max_length=10)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to='testapp.organization')),
            ],
            options={
                'abstract': False,
            },
        ),
    ]
