"""The pictures of a backbone show what they are of, and say so in words where there is nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.collections import PolyCollection

from remit.dataset.windows import encode_metadata
from remit.errors import RemitError
from remit.evaluation.look import Look
from remit.recordings.cohort import SheetRow
from remit.report import diagnostics
from remit.report.embedding_pictures import (
    Embeddings,
    draw_embeddings,
    read_embeddings,
    site_of,
)
from remit.report.reconstruction import chosen, draw_reconstruction, stretch_of
from tests.unit.report.conftest import said_above

mpl.use("Agg")
RATE, CHANNELS = 64, ("AF7", "AF8", "TP9", "TP10")


def look(
    skill: float, *, participant: str = "p1", start: float = 0.0, spectrum: bool = True
) -> Look:
    """16 s in which the backbone says ``skill`` times the truth of what was hidden at 9-11 s."""
    rng = np.random.default_rng(3)
    time_T = start + np.arange(16 * RATE) / RATE
    true_TC = np.sin(2 * np.pi * 10 * time_T)[:, None] + 0.1 * rng.normal(size=(len(time_T), 4))
    masked_TC = np.zeros(true_TC.shape, dtype=bool)
    masked_TC[9 * RATE : 11 * RATE] = True
    masked_TC[2 * RATE : 3 * RATE, 1] = True
    predicted_TC = np.where(masked_TC, skill * true_TC, np.nan)
    hz_F = np.arange(2.0, 22.0, 2.0)
    db_CF = np.tile(-hz_F, (4, 1))
    said_CF = db_CF + 1 if spectrum else np.full_like(db_CF, np.nan)
    return Look(
        participant,
        CHANNELS,
        time_T,
        true_TC,
        masked_TC,
        predicted_TC,
        hz_F,
        db_CF,
        said_CF,
        db_CF - 9,
    )


def lines_of(axis: Any, begins: str) -> list[Any]:
    return [line for line in axis.lines if (line.get_gid() or "").startswith(begins)]


# Hidden signal beside the truth -----------------------------------------------------------------


def test_what_is_shown_is_chosen_by_rank_and_not_by_beauty():
    looks = [look(skill, start=100 * n) for n, skill in enumerate((0.5, 0.0, 0.9, 0.1, 0.3))]
    rows = chosen(looks)
    explained = {word: each.explained for word, each in rows.items()}
    assert list(rows) == ["lowest", "median", "highest"]
    # Of a prediction that is s times the truth, 1 - (1 - s)^2 is explained.
    assert explained == pytest.approx({"lowest": 0.0, "median": 0.51, "highest": 0.99})
    assert chosen(looks[::-1]) == rows
    assert {id(each) for each in chosen(looks[:1]).values()} == {id(looks[0])}


def test_the_stretch_is_the_one_with_most_hidden():
    part = stretch_of(look(0.1))
    assert part.stop - part.start == 6 * RATE
    assert part.start <= 9 * RATE and part.stop >= 11 * RATE


def test_a_reconstruction_shows_truth_prediction_hidden_stretches_and_spectra():
    looks = [look(skill, participant=f"p{n}") for n, skill in enumerate((0.2, 0.6, 0.8))]
    figure = draw_reconstruction(looks, model="a model", flags=["SIMULATED DATA"])
    said = said_above(figure)
    assert "3 participants that pretraining has not seen (n=3 sequences)" in said
    assert "SIMULATED DATA" in said and "scaled units" in said
    axes = np.array(figure.axes).reshape(3, 2)
    for (left, right), (word, one) in zip(axes, chosen(looks).items(), strict=True):
        assert left.get_title().startswith(f"{word}: {one.explained:+.3f} of the hidden")
        part = stretch_of(one)
        for row, channel in enumerate(CHANNELS):
            (true,) = lines_of(left, f"true {channel}")
            (guess,) = lines_of(left, f"predicted {channel}")
            apart = 5.0 * row
            assert np.allclose(true.get_ydata() + apart, one.true_TC[part, row])
            drawn = np.isfinite(guess.get_ydata())
            assert (drawn == one.masked_TC[part, row]).all() and drawn.any()
            assert np.allclose(
                (guess.get_ydata() + apart)[drawn], one.predicted_TC[part, row][drawn]
            )
        hidden = [each for each in left.collections if isinstance(each, PolyCollection)]
        width = sum(np.ptp(each.get_paths()[0].vertices[:, 0]) for each in hidden)
        assert width == pytest.approx(one.masked_TC[part].sum() / RATE, rel=0.02)
        for gid, values_CF in (
            ("true", one.true_db_CF),
            ("spectrum", one.spectrum_db_CF),
            ("waveform", one.waveform_db_CF),
        ):
            (line,) = lines_of(right, gid)
            assert np.array_equal(line.get_xdata(), one.hz_F)
            assert np.allclose(line.get_ydata(), values_CF.mean(0))
        assert "dB" in right.get_ylabel() and right.get_xlabel() == "Hz"
    mpl.pyplot.close(figure)


def test_a_backbone_without_a_spectrum_or_without_a_waveform_is_said():
    figure = draw_reconstruction([look(0.5, spectrum=False)], model="m", flags=[])
    assert not lines_of(figure.axes[1], "spectrum") and lines_of(figure.axes[1], "true")
    mpl.pyplot.close(figure)
    figure = draw_reconstruction([], model="m", flags=[], without_waveform=True)
    assert "predicts no waveform" in figure.axes[0].texts[0].get_text()
    mpl.pyplot.close(figure)


# Embeddings -------------------------------------------------------------------------------------


def embeddings(seed: int, *, people: int = 9, recordings: int = 1, **metadata: Any) -> Embeddings:
    rng = np.random.default_rng(seed)
    names = np.repeat([f"p{n}" for n in range(people)], 6)
    taken = np.array([f"{name}_r{n % recordings}" for n, name in enumerate(names)])
    middle_PD = rng.normal(0, 3, (people, 16))
    rows_WD = np.repeat(middle_PD, 6, axis=0) + rng.normal(size=(len(names), 16))
    facts = {"model": "m", "simulated": False, "transductive": False, "seen": ["p0", "p1"]}
    return Embeddings(names, taken, rows_WD.astype(np.float32), facts | metadata)


LABELS = {f"p{n}": (None if n == 8 else n % 2) for n in range(9)}


def test_embeddings_are_the_principal_components_of_the_participants():
    both = embeddings(0), embeddings(1)
    figure = draw_embeddings(*both, LABELS, ("site", {f"p{n}": "ab"[n % 2] for n in range(8)}))
    axes = np.array(figure.axes).reshape(2, 3)
    for row, own in zip(axes, both, strict=True):
        _, mean_PD = own.means(own.participant_W)
        centred_PD = mean_PD - mean_PD.mean(0)
        left_PK, size_K, _ = np.linalg.svd(centred_PD, full_matrices=False)
        at_P2 = left_PK[:, :2] * size_K[:2]
        share_2 = size_K[:2] ** 2 / (size_K**2).sum()
        by_label = row[0]
        drawn = {line.get_gid(): np.stack(line.get_data(), 1) for line in by_label.lines}
        assert {key: len(at) for key, at in drawn.items()} == {
            "label 1": 4,
            "label 0": 4,
            "label None": 1,
        }
        found = np.concatenate([drawn["label 1"], drawn["label 0"], drawn["label None"]])
        own_order = at_P2[[1, 3, 5, 7, 0, 2, 4, 6, 8]]
        assert np.allclose(np.abs(found), np.abs(own_order), atol=1e-5)
        offset_WD = own.embedding_WD.astype(float) - own.embedding_WD.mean(0, dtype=float)
        axis_2D = np.linalg.svd(centred_PD, full_matrices=False)[2][:2]
        of_windows_2 = ((offset_WD @ axis_2D.T) ** 2).sum(0) / (offset_WD**2).sum()
        assert np.abs(of_windows_2 - share_2).max() > 0.01  # so that one for the other is seen
        for axis, (first, second), whose in zip(
            row,
            (share_2, of_windows_2, share_2),
            ("participants", "windows", "participants"),
            strict=True,
        ):
            assert axis.get_xlabel() == f"component 1: {first:.0%} of the {whose}' variance"
            assert axis.get_ylabel() == f"component 2: {second:.0%} of the {whose}' variance"
        markers = {line.get_marker() for line in by_label.lines}
        assert len(markers) == 3  # no label by colour alone
        counts = [len(line.get_xdata()) for line in row[1].lines]
        assert sum(counts) == len(own.embedding_WD) and "n=54" in row[1].get_title()
        by_site = {line.get_gid(): len(line.get_xdata()) for line in row[2].lines}
        assert by_site == {"site a": 4, "site b": 4, "site other": 1}
    assert "of whom pretraining has seen 2" in said_above(figure)
    mpl.pyplot.close(figure)


def test_several_recordings_of_a_participant_are_shown_and_flags_are_said():
    own = embeddings(0, recordings=3, simulated=True, transductive=True)
    figure = draw_embeddings(own, own, LABELS, ("", {}))
    assert len(figure.axes) == 4
    (recordings,) = lines_of(figure.axes[0], "recordings")
    assert len(recordings.get_xdata()) == 27
    assert "SIMULATED DATA" in said_above(figure) and "TRANSDUCTIVE" in said_above(figure)
    mpl.pyplot.close(figure)


def test_two_participants_have_no_plane_and_that_is_said():
    own = embeddings(0, people=2)
    figure = draw_embeddings(own, own, LABELS, ("", {}))
    assert "Fewer than 3 participants" in figure.axes[0].texts[0].get_text()
    mpl.pyplot.close(figure)


def test_the_site_is_that_of_the_sheet_where_it_differs():
    def row(name: str, **covariates: str) -> SheetRow:
        return SheetRow(name, f"{name}_r", f"{name}.edf", "", None, covariates)

    rows = [row("a", age="30", device="x", site="one"), row("b", age="40", device="x", site="two")]
    assert site_of(rows) == ("site", {"a": "one", "b": "two"})
    assert site_of([row("a", age="30"), row("b", age="31")]) == ("", {})


def test_what_are_no_embeddings_is_one_line(tmp_path: Path):
    file = tmp_path / "e.parquet"
    for content in (None, b"nothing"):
        if content:
            file.write_bytes(content)
        with pytest.raises(RemitError, match="holds no embeddings") as error:
            read_embeddings(file)
        assert "\n" not in str(error.value)
    table = pa.table({"Participant": ["a"], "recording": ["a"], "embedding": [[1.0]]})
    pq.write_table(table.replace_schema_metadata(encode_metadata({"kind": "features"})), file)
    with pytest.raises(RemitError, match="holds no embeddings"):
        read_embeddings(file)


# Checks -----------------------------------------------------------------------------------------


def test_every_check_has_its_verdict_as_a_word_and_a_shape(tmp_path, monkeypatch):
    kept: list[Any] = []
    monkeypatch.setattr(diagnostics, "save", lambda figure, file: kept.append(figure))
    verdicts = ["pass", "fail", "warn", "pass"]
    checks = [
        {"name": f"check {n}", "status": status, "found": "0.1 [0, 1] " * 9, "expected": "$more$"}
        for n, status in enumerate(verdicts)
    ]
    found = {"model": "m", "n": 7, "simulated": True, "checks": checks}
    diagnostics.draw_checks(json.loads(json.dumps(found)), tmp_path / "checks.png")
    (figure,) = kept
    (axis,) = figure.axes
    drawn = [(line.get_gid(), line.get_marker()) for line in lines_of(axis, "verdict")]
    assert drawn == [
        ("verdict fail", "X"),
        ("verdict warn", "^"),
        ("verdict pass", "o"),
        ("verdict pass", "o"),
    ]
    texts = [text.get_text() for text in axis.texts]
    assert [text for text in texts if text.isupper()] == ["FAIL", "WARN", "PASS", "PASS"]
    for check in checks:
        assert check["name"] in texts
    assert "1 of 4 checks fail, 1 warn, 2 pass" in said_above(figure)
    assert "7 participants" in said_above(figure) and "SIMULATED" in said_above(figure)
    mpl.pyplot.close(figure)


@pytest.mark.parametrize("n", [4, 5])
def test_why_nothing_is_decided_of_few_people_is_said(tmp_path, monkeypatch, n):
    """An interval beside 0 with a hollow mark would else contradict itself."""
    kept: list[Any] = []
    monkeypatch.setattr(diagnostics, "save", lambda figure, file: kept.append(figure))
    skill = {"value": -0.4, "low": -0.5, "high": -0.3, "n": n}
    error = {"model": {"value": 0.3}, "mean": {"value": 0.2}}
    one = {"all": {"robust": {"error": error, "against": {"mean": skill}}}}
    found = {"model": "m", "n": n, "simulated": False, "masked": {"as trained": {"waveform": one}}}
    diagnostics.draw_skill(found, tmp_path / "skill.png")
    (figure,) = kept
    (mark,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert (mark.get_markerfacecolor() == "white") == (n < 5)
    assert ("as are all with fewer than 5 participants" in said_above(figure)) == (n < 5)
    mpl.pyplot.close(figure)
