import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        # The setting, never a label: each host has its own organization model.
        migrations.swappable_dependency(settings.USAGE_TRACKING_ORGANIZATION_MODEL),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='UsagePeriod',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('meter', models.CharField(default='api', max_length=64, verbose_name='meter')),
                ('start', models.DateTimeField(verbose_name='start')),
                ('end', models.DateTimeField(blank=True, help_text='Exclusive; none under manual reset.', null=True, verbose_name='end')),
                ('is_open', models.BooleanField(default=True, help_text='True or none: at most one open period per organization and meter.', null=True, verbose_name='open')),
                ('used', models.BigIntegerField(default=0, verbose_name='used')),
                ('refused', models.BigIntegerField(default=0, help_text='Refused calls, whatever their amounts; approximate.', verbose_name='refused')),
                ('limit', models.BigIntegerField(blank=True, help_text='None = unlimited.', null=True, verbose_name='limit')),
                ('enforcement', models.CharField(choices=[('hard', 'hard'), ('soft', 'soft'), ('shadow', 'shadow')], max_length=16, verbose_name='enforcement')),
                ('reset_mode', models.CharField(choices=[('lazy', 'lazy'), ('scheduled', 'scheduled'), ('manual', 'manual')], max_length=16, verbose_name='reset mode')),
                ('on_lease', models.BigIntegerField(default=0, help_text='What processes have borrowed and not settled yet: as good as used where there is a limit.', verbose_name='on lease')),
                ('called_back_at', models.DateTimeField(blank=True, help_text='When somebody was last refused for want of what is on lease.', null=True, verbose_name='called back at')),
                ('bucket_start', models.DateTimeField(verbose_name='bucket start')),
                ('used_before_bucket', models.BigIntegerField(default=0, verbose_name='used before the open bucket')),
                ('refused_before_bucket', models.BigIntegerField(default=0, verbose_name='refused before the open bucket')),
                ('checkpoint_at', models.DateTimeField(help_text='The next instant at which something must happen: the open bucket ends.', verbose_name='checkpoint')),
                ('checkpoint_used', models.BigIntegerField(help_text='The next amount at which something must happen.', verbose_name='checkpoint amount')),
                ('closed_at', models.DateTimeField(blank=True, null=True, verbose_name='closed at')),
                ('closed_by', models.CharField(blank=True, choices=[('lazy', 'lazy'), ('scheduled', 'scheduled'), ('manual', 'manual')], default='', max_length=16, verbose_name='closed by')),
                ('pruned_at', models.DateTimeField(blank=True, help_text='When history rows of this period were first pruned.', null=True, verbose_name='pruned at')),
                ('organization', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='usage_periods', to=settings.USAGE_TRACKING_ORGANIZATION_MODEL, verbose_name='organization')),
            ],
            options={
                'verbose_name': 'usage period',
                'verbose_name_plural': 'usage periods',
                'permissions': [('view_usage', 'Can view the usage of organizations'), ('reset_usage', 'Can reset the usage of organizations'), ('change_limits', 'Can change the limits of organizations')],
            },
        ),
        migrations.CreateModel(
            name='UsageHistory',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('meter', models.CharField(default='api', max_length=64, verbose_name='meter')),
                ('start', models.DateTimeField(verbose_name='start')),
                ('end', models.DateTimeField(verbose_name='end')),
                ('used', models.BigIntegerField(default=0, verbose_name='used')),
                ('refused', models.BigIntegerField(default=0, verbose_name='refused')),
                ('organization', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='usage_history', to=settings.USAGE_TRACKING_ORGANIZATION_MODEL, verbose_name='organization')),
                ('period', models.ForeignKey(on_delete=django.db.models.deletion.DO_NOTHING, related_name='history', to='usage_tracking.usageperiod', verbose_name='period')),
            ],
            options={
                'verbose_name': 'usage history',
                'verbose_name_plural': 'usage history',
            },
        ),
        migrations.CreateModel(
            name='UsageLease',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('meter', models.CharField(default='api', max_length=64, verbose_name='meter')),
                ('bucket_start', models.DateTimeField(help_text='Of the bucket in which it is spent.', verbose_name='bucket start')),
                ('holder', models.CharField(help_text='Host and process.', max_length=64, verbose_name='holder')),
                ('granted', models.BigIntegerField(help_text='All that was ever lent on it.', verbose_name='granted')),
                ('settled', models.BigIntegerField(default=0, help_text='How much of it is counted as used.', verbose_name='settled')),
                ('expires_at', models.DateTimeField(verbose_name='expires at')),
                ('lost_at', models.DateTimeField(blank=True, null=True, verbose_name='lost at')),
                ('charged', models.BigIntegerField(default=0, help_text='What was counted when it was lost.', verbose_name='charged')),
                ('organization', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='usage_leases', to=settings.USAGE_TRACKING_ORGANIZATION_MODEL, verbose_name='organization')),
                ('period', models.ForeignKey(on_delete=django.db.models.deletion.DO_NOTHING, related_name='leases', to='usage_tracking.usageperiod', verbose_name='period')),
            ],
            options={
                'verbose_name': 'usage lease',
                'verbose_name_plural': 'usage leases',
                'indexes': [models.Index(fields=['organization', 'meter'], name='usage_lease_meter'), models.Index(fields=['lost_at', 'expires_at'], name='usage_lease_expiry')],
            },
        ),
        migrations.CreateModel(
            name='UsageEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('warning', 'warning'), ('exceeded', 'exceeded'), ('reset', 'reset'), ('limits_updated', 'limits updated'), ('refunded', 'refunded'), ('adjusted', 'adjusted'), ('lease_lost', 'lease lost')], max_length=32, verbose_name='kind')),
                ('meter', models.CharField(default='api', max_length=64, verbose_name='meter')),
                ('threshold', models.PositiveSmallIntegerField(blank=True, help_text='Percent of the limit that was reached.', null=True, verbose_name='threshold')),
                ('limit', models.BigIntegerField(blank=True, null=True, verbose_name='limit')),
                ('actor_label', models.CharField(blank=True, default='', help_text='Who it was, should the user be gone.', max_length=255, verbose_name='actor label')),
                ('reason', models.TextField(blank=True, default='', verbose_name='reason')),
                ('data', models.JSONField(blank=True, default=dict, verbose_name='data')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
                ('claimed_until', models.DateTimeField(blank=True, null=True, verbose_name='claimed until')),
                ('delivered_at', models.DateTimeField(blank=True, null=True, verbose_name='delivered at')),
                ('dedupe_key', models.CharField(blank=True, max_length=128, null=True, unique=True, verbose_name='dedupe key')),
                ('actor', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='actor')),
                ('organization', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='usage_events', to=settings.USAGE_TRACKING_ORGANIZATION_MODEL, verbose_name='organization')),
                ('period', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='events', to='usage_tracking.usageperiod', verbose_name='period')),
            ],
            options={
                'verbose_name': 'usage event',
                'verbose_name_plural': 'usage events',
            },
        ),
        migrations.AddIndex(
            model_name='usageperiod',
            index=models.Index(fields=['is_open', 'end'], name='usage_period_expiry'),
        ),
        migrations.AddConstraint(
            model_name='usageperiod',
            constraint=models.UniqueConstraint(fields=('organization', 'meter', 'is_open'), name='usage_period_one_open'),
        ),
        migrations.AddConstraint(
            model_name='usageperiod',
            constraint=models.UniqueConstraint(fields=('organization', 'meter', 'start'), name='usage_period_one_start'),
        ),
        migrations.AddConstraint(
            model_name='usageperiod',
            constraint=models.CheckConstraint(condition=models.Q(('used_before_bucket__gte', 0), ('used__gte', models.F('used_before_bucket'))), name='usage_period_used_covers_history'),
        ),
        migrations.AddConstraint(
            model_name='usageperiod',
            constraint=models.CheckConstraint(condition=models.Q(('end', None), ('end__gt', models.F('start')), _connector='OR'), name='usage_period_not_empty'),
        ),
        migrations.AddConstraint(
            model_name='usagehistory',
            constraint=models.UniqueConstraint(fields=('organization', 'meter', 'start'), name='usage_history_one_start'),
        ),
        migrations.AddConstraint(
            model_name='usagehistory',
            constraint=models.CheckConstraint(condition=models.Q(('end__gt', models.F('start'))), name='usage_history_not_empty'),
        ),
        migrations.AddConstraint(
            model_name='usagehistory',
            constraint=models.CheckConstraint(condition=models.Q(('used__gte', 0)), name='usage_history_used_not_negative'),
        ),
        migrations.AddIndex(
            model_name='usageevent',
            index=models.Index(fields=['delivered_at', 'id'], name='usage_event_outbox'),
        ),
        migrations.AddIndex(
            model_name='usageevent',
            index=models.Index(fields=['organization', 'created_at'], name='usage_event_audit'),
        ),
    ]
