"""What every picture shares: the canvas, what must be said above it, the colours, and the file.

Colours are Okabe and Ito's, told apart by the colour-blind (Okabe & Ito 2008, "Color universal
design"); no picture says by colour alone what it says. The same data give the same bytes.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remit.files import atomic_write

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, BLACK, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#7F7F7F"
# In the order in which they are given to groups; a marker for each, as print may be grey.
CYCLE = ((BLUE, "o"), (VERMILION, "D"), (GREEN, "s"), (PURPLE, "^"), (ORANGE, "v"), (SKY, "P"))
WARNING = "#B00000"
FLAGS = "flags"  # the name of what is said in red above a picture
DPI = 110
_LETTER = 5.2  # points, the width of a letter of a title and a little more


def canvas(
    rows: int,
    columns: int,
    size: tuple[float, float],
    *,
    title: str,
    flags: Sequence[str] = (),
    **subplots: Any,
) -> tuple[Any, Any]:
    """A figure and its axes ``[rows, columns]``, with the title above and the flags below it, in red.

    Args:
        rows, columns: of panels.
        size: width and height in inches.
        title: what the picture is of.
        flags: what forbids believing it ("SIMULATED DATA"), one to a line.
        **subplots: what matplotlib's ``subplots`` takes besides.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, **subplots
    )
    # The layout makes room for the title alone, so it ends in lines for the flags, which lie on them.
    # Its own wrapping would read a '$' in a label as a formula.
    letters = int(size[0] * 72 / _LETTER)
    lines = [textwrap.fill(line, letters) for line in title.split("\n")]
    below = [line for flag in flags for line in textwrap.wrap(flag, letters)]
    heading = figure.suptitle("\n".join(lines) + "\n" * len(below), fontsize=9)
    if flags:
        told = mpl.text.Annotation(
            "\n".join(below),
            *((0.5, 0), None, heading),
            ha="center",
            va="bottom",
            fontsize=9,
            color=WARNING,
            gid=FLAGS,
        )
        figure.add_artist(told)
    return figure, axes


def png(figure: Any) -> bytes:
    """The picture as PNG; the figure is closed. A '$' in somebody's label is no formula."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    for text in figure.findobj(mpl.text.Text):  # those that are there were told when they were made
        text.set_parse_math(False)
    with mpl.rc_context({"text.parse_math": False}):  # and labels of ticks come with the drawing
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def save(figure: Any, file: Path) -> bytes:
    """Write the picture to ``file``, whole or not at all, and give its bytes; the figure is closed."""
    picture = png(figure)
    with atomic_write(file) as temporary:
        temporary.write_bytes(picture)
    return picture
