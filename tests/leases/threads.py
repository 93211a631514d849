"""Work in a thread of its own, hence on connections of its own."""

from concurrent.futures import Future
from threading import Thread

from django.db import connections

PATIENCE = 60
"""Seconds after which a thread hangs."""


def in_thread(work):
    """Begin to work, and return the future of the answer; one that hangs does not keep the tests from ending."""
    answer = Future()

    def run():
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is asked for
            answer.set_exception(error)
        finally:
            connections.close_all()

    Thread(target=run, daemon=True).start()
    return answer
