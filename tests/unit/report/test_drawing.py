"""What stands above every picture: a title that fits on it, and in red what forbids believing it."""

from __future__ import annotations

from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from remit.report.drawing import FLAGS, WARNING, canvas


def test_only_the_flags_are_red_and_nothing_lies_on_anything():
    reaching = ["recording length and quality only", "place in the cohort sheet only", "age only"]
    flags = [f"REACHED WITHOUT EEG by {', '.join(reaching)}", "SIMULATED DATA"]
    long = "a title of so many words that they are wider than the picture, at 5 $ or more " * 3
    figure, ((axis,),) = canvas(1, 1, (6, 3), title=f"a model\n{long.strip()}", flags=flags)
    axis.set_title("a panel")
    figure.draw_without_rendering()
    heading = figure._suptitle
    (told,) = figure.findobj(lambda artist: artist.get_gid() == FLAGS)
    said = told.get_text().split("\n")
    assert len(said) == 3 and " ".join(said) == " ".join(flags)
    assert to_hex(told.get_color()) == WARNING.lower() and to_hex(heading.get_color()) == "#000000"
    whole, below, panel = (each.get_window_extent() for each in (heading, told, axis.title))
    for each in (whole, below):  # wrapped, not cut
        assert figure.bbox.x0 <= each.x0 and each.x1 <= figure.bbox.x1
    assert whole.y0 <= below.y0 + 1 and panel.y1 < below.y0  # in the room that the title keeps
    lines = heading.get_text().split("\n")
    assert lines[-3:] == [""] * 3 and all(lines[:-3]) and len(lines) > 5
    assert below.height < whole.height * 4 / len(lines)  # and not on its words
    plt.close(figure)


def test_without_a_flag_there_is_no_red():
    figure, _ = canvas(1, 1, (3, 2), title="a model")
    assert figure.get_suptitle() == "a model"
    assert not figure.findobj(lambda artist: artist.get_gid() == FLAGS)
    plt.close(figure)
