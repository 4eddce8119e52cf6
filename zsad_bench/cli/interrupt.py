"""Ctrl-C ends a run soon, even while a long computation does not listen."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 130
GRACE_SECONDS = 1.5


@contextmanager
def prompt_interrupts(message: str) -> Iterator[None]:
    """Turn the first SIGINT into KeyboardInterrupt, and end the process if that is not obeyed within 1.5 s.

    Ending hard is safe because every file is written under another name first: finished work is kept, and nothing is
    left half written under its own name.

    Args:
        message: one line for the error stream when the process has to be ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end() -> None:
        sys.stderr.write(f"\nerror: {message}\n")
        sys.stderr.flush()
        os._exit(EXIT_CODE)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        timer = threading.Timer(GRACE_SECONDS, end)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
