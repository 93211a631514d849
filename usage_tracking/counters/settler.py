"""Who writes what this process has spent: a thread while there is something on lease, and whoever ends the process."""

import atexit
import logging
import os
import signal
import threading
from contextlib import suppress
from datetime import datetime
from multiprocessing.util import Finalize
from time import monotonic
from typing import Any, Final, Protocol

from django.db import connections, router
from django.utils import timezone

from usage_tracking.conf import usage_settings
from usage_tracking.leases import bury_lost_leases
from usage_tracking.models import UsagePeriod

__all__ = ["Books", "Settler"]

logger = logging.getLogger(__name__)

EARLY: Final = 100
"""Among the finalizers of multiprocessing: before those that close what we need."""

PATIENCE: Final = 10
"""Seconds that the end of the process waits for a database that does not answer."""


class Books(Protocol):
    """What a settler keeps: the leased counter."""

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing on lease."""

    def settle_all(self, now: datetime) -> None:
        """Settle what is on lease."""

    def stop(self) -> None:
        """Return everything and borrow no more."""


class Settler:
    """Settles the books of a process every SETTLE_SECONDS, in a daemon thread with a connection of its own.

    It also sees to the end of the process. Most servers and all commands end by running what is registered with
    `atexit`; children of multiprocessing run its finalizers instead, and Celery's send `worker_process_shutdown` (see
    `tasks`). uvicorn ends by raising once more, at itself, the SIGTERM that it was sent: that signal is held back until
    everything is returned (`guard`), if Python lets us: its main thread alone may ask for that.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self.begin_anew()

    def begin_anew(self) -> None:
        """Know of no thread: after a fork there is none."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_ending, self._has_ended = threading.Event(), threading.Event()
        self._sees_to_the_end = False
        self.is_unguarded = True
        """Whether SIGTERM would end the process, for all we know, before anything was returned."""

    def ensure_running(self) -> None:
        """Settle from now on, and when the process ends; called when something was borrowed."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="usage-settler", daemon=True)
                self._thread.start()
            if not self._sees_to_the_end:
                self._sees_to_the_end = self.is_unguarded = True
                atexit.register(self.stop)
                Finalize(None, self.stop, exitpriority=EARLY)

    def guard(self) -> None:
        """Hold SIGTERM back from whoever handles it now, if this is the thread that may do so."""
        if not self.is_unguarded or threading.current_thread() is not threading.main_thread():
            return
        self.is_unguarded = False
        handler = signal.getsignal(signal.SIGTERM)
        if handler not in {None, signal.SIG_IGN, self._hold_back}:
            self._held_back_from = handler
            signal.signal(signal.SIGTERM, self._hold_back)

    def _hold_back(self, *_: Any) -> None:
        signal.signal(signal.SIGTERM, self._held_back_from)
        # Not here: what this thread was doing when the signal came may be what there is to wait for. Once the process
        # is past starting threads, it is past waiting for a signal, too.
        with suppress(RuntimeError):
            threading.Thread(target=self._return_and_pass_on, name="usage-settler-last", daemon=True).start()

    def _return_and_pass_on(self) -> None:
        self.stop()
        os.kill(os.getpid(), signal.SIGTERM)

    def stop(self) -> None:
        """Return everything and borrow no more; never raises.

        The thread does it, which is there while there is anything to return: an interpreter that is about to end starts
        no new one, and a database that does not answer keeps nobody for longer than PATIENCE.
        """
        self._is_ending.set()
        with self._lock:
            thread = self._thread
        if thread is None:
            self._stop()
        else:
            self._has_ended.wait(PATIENCE)

    def _stop(self) -> None:
        try:
            self._books.stop()
        except Exception:
            logger.exception("What this process has on lease could not be returned; it is lost when it expires.")

    def _run(self) -> None:
        swept = monotonic()
        try:
            while True:
                options = usage_settings.LEASE
                if self._is_ending.wait(options.settle_seconds):
                    self._stop()
                    break
                self._settle()
                if monotonic() - swept >= options.expire_seconds:
                    swept = monotonic()
                    self._bury()
                with self._lock:
                    if self._books.is_idle and not self._is_ending.is_set():
                        self._thread = None
                        return
        finally:
            connections.close_all()
        self._has_ended.set()

    def _settle(self) -> None:
        try:
            self._books.settle_all(timezone.now())
        except Exception:
            logger.exception("What this process has spent could not be settled; it stays on its books.")
            connections.close_all()  # the next one begins on a new connection

    def _bury(self) -> None:
        try:
            bury_lost_leases(router.db_for_write(UsagePeriod))
        except Exception:
            logger.exception("Lost leases were not looked for.")
