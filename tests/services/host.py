"""The Celery application of a host, for the worker and beat that the tests start: `celery -A tests.services.host`.

The environment says which broker and queue; `NOTEBOOK` is a file that the receivers of this process write into.
"""

import os
from datetime import timedelta
from pathlib import Path

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from usage_tracking import signals
from usage_tracking.schedule import BEAT_SCHEDULE


def application(broker_url: str, queue: str) -> Celery:
    """Return the application, with a queue of its own: tests of other environments share the broker."""
    app = Celery("tests", set_as_current=False)
    app.conf.update(
        broker_url=broker_url,
        broker_connection_retry_on_startup=True,
        task_default_queue=queue,
        worker_enable_remote_control=False,
        # What users import, only faster.
        beat_schedule={name: entry | {"schedule": timedelta(seconds=1)} for name, entry in BEAT_SCHEDULE.items()},
    )
    if broker_url.startswith("redis"):
        app.conf.broker_transport_options = {"global_keyprefix": f"{queue}:"}
    return app


def write_down(signal, event, **_):
    """Note which process has been told about which event."""
    with Path(os.environ["NOTEBOOK"]).open("a", encoding="utf-8") as notebook:
        notebook.write(f"{os.getpid()} {event.kind} {event.pk}\n")


if "NOTEBOOK" in os.environ:
    app = application(os.environ["CELERY_TEST_BROKER"], os.environ["CELERY_TEST_QUEUE"])
    app.set_default()
    app.autodiscover_tasks()
    for signal in (signals.usage_warning, signals.limit_exceeded, signals.usage_reset, signals.limits_updated):
        signal.connect(write_down)

    @app.task(name="tests.use", ignore_result=True)
    def use():
        """Consume once."""
        from tests.leases import host  # noqa: PLC0415 - it imports models

        host.use(1)
