"""An error is one line that a terminal shows as it is."""

from hypothesis import given
from hypothesis import strategies as st

from remit.errors import RemitError


@given(st.text())
def test_a_message_is_one_printable_line(text):
    message = str(RemitError(text))
    assert message.isprintable() and "\n" not in message


def test_escape_sequences_are_shown_and_not_obeyed():
    assert str(RemitError("a\x1b[31mb\nc")) == "a\\x1b[31mb c"
