"""A time limit for code of others, in the process and thread that it needs to run in (a model lives there)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Overrun(BaseException):
    """The time is over. Not an `Exception`, so that no `except Exception` of the code that hangs swallows it."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns, if it does so in time.

    In the main thread an alarm ends it, which reaches waiting, loops and even regular expressions; a call that sets an
    alarm itself loses this one. In another thread, where there are no alarms, it is left running and not waited for.

    Raises:
        Overrun: it does not.
    """
    if threading.current_thread() is not threading.main_thread():
        return _beside(seconds, call)

    def expire(number: int, frame: FrameType | None) -> None:
        raise Overrun

    handler = signal.signal(signal.SIGALRM, expire)
    started = time.monotonic()
    # Again every second, for code that has a bare `except:`.
    before, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if before:  # an alarm of whoever called goes on
            signal.setitimer(signal.ITIMER_REAL, max(before - (time.monotonic() - started), 0.001), interval)


def _beside(seconds: float, call: Callable[[], T]) -> T:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():  # the call's own
            raise
        raise Overrun from None
