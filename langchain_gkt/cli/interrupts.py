"""Ctrl-C: the first one ends a command in order, a second one at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130
"""Exit status of a program that Ctrl-C ended, as shells know it."""

_SHOW_CURSOR = "\x1b[?25h"


def end_at_once_when_repeated(last_words: Callable[[], str]) -> Callable[[], None]:
    """Let a second Ctrl-C end the process without a traceback.

    The first one raises KeyboardInterrupt, as always. The cleanup may take seconds, and a second
    KeyboardInterrupt in the middle of it would print pages of tracebacks.

    ``last_words`` makes the last line for standard error. Returns a function that restores the
    earlier handler.
    """
    own_thread = threading.current_thread() is threading.main_thread()
    if not own_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return lambda: None  # ignored, or somebody else's business

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, second)
        raise KeyboardInterrupt

    def second(number: int, frame: FrameType | None) -> None:
        if sys.stderr.isatty():
            os.write(2, _SHOW_CURSOR.encode())  # a progress bar has hidden it
        os.write(2, f"\n{last_words()}\n".encode())
        os._exit(INTERRUPTED)

    def restore() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, first)
    return restore
