"""Bars of progress on a terminal, and nothing where there is none: logs keep their plain lines.

A bar stands on standard error, appears when the work takes a while, and leaves nothing behind. Only the
command line allows bars (:func:`allow`); who calls remit from Python gets none.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

T = TypeVar("T")
SHOWN_AFTER_SECONDS = 0.5  # what is over sooner needs no bar

_allowed = False
_bars: dict[int, Any] = {}  # those on the terminal by id, for two of them may compare equal


def allow() -> None:
    """Draw bars from now on where standard error is a terminal; of several ranks the first one alone."""
    global _allowed
    _allowed = sys.stderr.isatty() and os.environ.get("RANK", "0") == "0"


def track(items: Iterable[T], what: str, unit: str, *, done: int = 0) -> Iterator[T]:
    """The items, one by one, with a bar of how many are done.

    Args:
        items: are taken as they come; of those without a length the bar is a count.
        what: is done to them, in a word or two.
        unit: of what is counted, in the singular.
        done: how many were done before.
    """
    if not _allowed:
        yield from items
        return
    from tqdm import tqdm

    # No thread and no semaphore of its own, beside processes that fork and are timed.
    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())
    bar = tqdm(
        desc=what,
        unit=f" {unit}",
        initial=done,
        total=done + len(items) if isinstance(items, Sized) else None,
        leave=False,
        delay=SHOWN_AFTER_SECONDS,
        dynamic_ncols=True,
        file=sys.stderr,
    )
    _bars[id(bar)] = bar
    try:
        for item in items:
            yield item
            bar.update()
    finally:
        bar.close()
        del _bars[id(bar)]


def say(line: str) -> None:
    """Print a line to standard output, above the bars."""
    if not _bars:
        print(line, flush=True)
        return
    from tqdm import tqdm

    with tqdm.external_write_mode():
        print(line, flush=True)


def end() -> None:
    """Take all bars from the terminal, as before the line of an error."""
    for bar in reversed(_bars.values()):
        bar.close()
