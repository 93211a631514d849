"""What a child of multiprocessing runs: it may have been spawned, with nothing of Django."""

import django


def use(times: int) -> None:
    """Consume so many times."""
    django.setup()
    from tests.leases import host  # noqa: PLC0415

    host.use(times)
