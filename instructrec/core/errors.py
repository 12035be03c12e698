"""A user's mistake is one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import difflib
import errno
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType

_PLACES = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
"""What the system says of a place that cannot be written: a file in the way, no permission, no space."""


_INTERRUPTED = threading.Event()


class UserError(Exception):
    """Something the user can mend. The message says what, where (file:line, row, key) and how to mend it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name nearest to `name`, or the empty string where none is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def check_interrupt() -> None:
    """Raise `KeyboardInterrupt` if Ctrl-C was pressed and did not get here, as where a library has a bare `except:`."""
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt


def hold_interrupts() -> None:
    """Let Ctrl-C wait for `release_interrupts`, in a command that `run` called; where a library must not be cut."""
    if signal.getsignal(signal.SIGINT) is _interrupt and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _remember)


def release_interrupts() -> None:
    """End `hold_interrupts`. Raises `KeyboardInterrupt` if Ctrl-C was pressed meanwhile."""
    if signal.getsignal(signal.SIGINT) is _remember:
        signal.signal(signal.SIGINT, _interrupt)
        check_interrupt()


def _remember(number: int, frame: FrameType | None) -> None:
    _INTERRUPTED.set()


def _interrupt(number: int, frame: FrameType | None) -> None:
    _INTERRUPTED.set()
    signal.default_int_handler(number, frame)


def run(main: Callable[[], None]) -> None:
    """Call `main` as a command: a `UserError`, or a place that cannot be written, is one line and exit code 2."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in _PLACES:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror}; choose another place or mend this one", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to resume", file=sys.stderr)
        raise SystemExit(130) from None
