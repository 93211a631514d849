"""Who writes what this process has spent: a thread while there is something on lease, and whoever ends the process."""

import atexit
import logging
import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from multiprocessing.util import Finalize
from time import monotonic
from typing import Any, Final, Protocol

from django.db import DatabaseError, connections, router
from django.utils import timezone

from usage_tracking.conf import Lease, SettingError, usage_settings
from usage_tracking.databases import close_own, limit_own_waits
from usage_tracking.events import deferred_delivery, dispatch
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
        self._messenger: threading.Thread | None = None
        self._swept = 0.0
        self._gives_up_at: float | None = None
        self._sees_to_the_end = False
        self._held_back_from: Any = signal.SIG_DFL
        self.is_unguarded = True
        """Whether SIGTERM would end the process, for all we know, before anything was returned."""

    def ensure_running(self) -> None:
        """Settle from now on, and when the process ends; called when something was borrowed."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="usage-settler", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    logger.exception("No thread settles what this process has borrowed; the next loan tries again.")
                else:
                    self._thread = thread
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
        # An event loop that has asked for the signal itself hears of it whatever the handler does.
        is_asyncio = str(getattr(handler, "__module__", "")).startswith("asyncio")
        if is_asyncio or handler in {None, signal.SIG_IGN, self._hold_back}:
            return
        with suppress(ValueError):  # in a sub-interpreter, whose main thread is not the process's
            signal.signal(signal.SIGTERM, self._hold_back)
            self._held_back_from = handler

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
        no new one, and a database that does not answer keeps nobody for longer than PATIENCE. Nor does a receiver that
        is being told of a settlement just then.
        """
        self._is_ending.set()
        with self._lock:
            thread = self._thread
            # Whoever asks once more, as several may at the end, waits for the rest of the time only.
            self._gives_up_at = self._gives_up_at or monotonic() + PATIENCE
        if thread is None or not thread.is_alive():
            self._stop()
        else:
            self._has_ended.wait(max(self._gives_up_at - monotonic(), 0))
        messenger = self._messenger
        if messenger is not None and messenger is not threading.current_thread():
            messenger.join(max(self._gives_up_at - monotonic(), 0))

    def _stop(self) -> None:
        try:
            try:
                self._books.stop()
            except DatabaseError:
                # The connection may have died since it last settled, and there is no next time.
                connections.close_all()
                self._books.stop()
        except Exception:
            logger.exception("What this process has on lease could not be returned; it is lost when it expires.")

    def _run(self) -> None:
        try:
            while not self._is_ending.wait(_options().settle_seconds):
                self._settle()
                if monotonic() - self._swept >= _options().expire_seconds:
                    self._swept = monotonic()
                    self._bury()
                with self._lock:
                    if self._books.is_idle and not self._is_ending.is_set():
                        self._thread = None
                        return
            self._stop()
        finally:
            close_own()
        self._has_ended.set()

    def _settle(self) -> None:
        with deferred_delivery() as outboxes:
            try:
                limit_own_waits(router.db_for_write(UsagePeriod))
                self._books.settle_all(timezone.now())
            except Exception:
                logger.exception("What this process has spent could not be settled; it stays on its books.")
                close_own()  # the next one begins on a new connection
        # Not here: a receiver that takes its time would keep everything from being settled.
        if outboxes and (self._messenger is None or not self._messenger.is_alive()):
            self._messenger = threading.Thread(target=_tell, args=(outboxes,), name="usage-messenger", daemon=True)
            self._messenger.start()

    def _bury(self) -> None:
        try:
            bury_lost_leases(router.db_for_write(UsagePeriod))
        except Exception:
            logger.exception("Lost leases were not looked for.")


def _options() -> Lease:
    try:
        return usage_settings.LEASE
    except SettingError:
        return Lease()  # a system check names it; what is on lease must be settled all the same


def _tell(outboxes: Iterable[str]) -> None:
    try:
        dispatch(outboxes)
    finally:
        connections.close_all()
