"""The curves of a training say what forbids believing them, and are seen where there is one epoch."""

from __future__ import annotations

import json
from typing import Any

import pytest
from matplotlib import pyplot as plt

from remit.errors import RemitError
from remit.report import model_report
from remit.report.drawing import BLUE, VERMILION
from tests.unit.report.conftest import said_above


def card(epochs: int, *, transductive: bool, simulated: bool) -> dict[str, Any]:
    before = ("train_loss", "held_out_loss", "held_out_waveform_explained")
    before = (*before, "held_out_spectrum_explained")
    after = ("train_loss", "val_loss", "val_f1", "val_auc")
    numbers = range(1, epochs + 1)
    seen = {"training": ["a", "b"], "early_stopping": ["c", "d", "e"]}
    return {
        "name": "made",
        "data": {"simulated": simulated},
        "pretrained": {
            "data": {"transductive": transductive, "participants_seen": seen},
            "history": [{"epoch": n, **dict.fromkeys(before, 0.5)} for n in numbers],
            "best_epoch": 1,
        },
        "history": [{"epoch": n, **dict.fromkeys(after, 0.5)} for n in numbers],
        "best_epoch": epochs,
        "metrics": {"val": {"n": 4}},
    }


def test_a_card_that_lacks_what_warns_is_refused_in_one_line(tmp_path):
    made = card(1, transductive=False, simulated=True) | {"kind": "finetuned"}
    made["pretrained"]["backbone_sha256"] = made["data"]["split_sha256"] = ""
    (tmp_path / "card.json").write_text(json.dumps(made))
    with pytest.raises(RemitError, match=r"no card of a fine-tuned model .*rebuild it"):
        model_report.read_card(tmp_path / "card.json")


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("transductive", [True, False])
def test_curves_are_seen_with_n_and_flags(tmp_path, monkeypatch, epochs, transductive):
    kept = []
    monkeypatch.setattr(model_report, "save", lambda figure, _: kept.append(figure))
    made = card(epochs, transductive=transductive, simulated=True)
    model_report.draw_curves(made, tmp_path / "curves.png")
    (figure,) = kept
    assert ("TRANSDUCTIVE" in said_above(figure)) == transductive
    assert "SIMULATED DATA" in said_above(figure)
    for axis in figure.axes:
        drawn = [line for line in axis.lines if len(line.get_xdata()) == epochs][:2]
        assert len(drawn) == 2
        assert [line.get_marker() for line in drawn] == (
            ["o", "D"] if epochs == 1 else ["None"] * 2
        )
        assert len({line.get_color() for line in drawn} & {BLUE, VERMILION}) == 2
        low, high = axis.get_xlim()
        assert all(tick == int(tick) for tick in axis.get_xticks() if low <= tick <= high)
    assert "participants kept aside (n=3)" in figure.axes[1].get_title()
    assert "(n=4)" in figure.axes[3].get_title()
    plt.close(figure)
