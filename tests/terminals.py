"""A terminal that tests can read."""

import contextlib
import os
import pty
import sys
from collections.abc import Callable, Iterator

import pytest


@contextlib.contextmanager
def terminal() -> Iterator[Callable[[], str]]:
    """Let standard output and error be a terminal of 80 columns; yield what reads its screen."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)

    def read() -> str:
        sys.stderr.flush()
        shown = b""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(ours, 1 << 16):  # at most 4 kB at a time
                shown += data
        return shown.decode()

    with pytest.MonkeyPatch.context() as patch, os.fdopen(theirs, "w", encoding="utf-8") as screen:
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "xterm-256color")
        patch.setattr(sys, "stdout", screen)
        patch.setattr(sys, "stderr", screen)
        yield read
    os.close(ours)
