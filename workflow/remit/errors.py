"""The one error a person sees, and the suggestion that goes with a slip of the pen.

Every stage raises :class:`RemitError` for anything the user can put right: one line that says what,
what was found, what was expected and what to do. The command line prints it without a traceback.
This module imports nothing of remit.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class RemitError(Exception):
    """A problem the user can mend; its message is one line without a traceback."""

    def __init__(self, message: str) -> None:
        line = " ".join(str(message).split())
        # What a file calls itself may hold escape sequences, which a terminal would obey.
        super().__init__(
            "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        )


def without_password(text: str) -> str:
    """The text without what may hold a password in addresses: who stands before an @, and what after a ?."""
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", re.sub(r"//\S*@", "//***@", text))


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest candidate, or an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    nearest = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[nearest[0]]}'?" if nearest else ""


def some_of(names: Iterable[str], most: int = 8) -> str:
    """Return the first few names as text, with a count of what was left out."""
    listed = [str(name) for name in names]
    if not listed:
        return "none"
    tail = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + tail
