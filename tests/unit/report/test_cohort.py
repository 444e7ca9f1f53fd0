"""The pictures of a cohort hold what is in the files, counted and computed a second time by hand."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from remit import cli
from remit.config import Split
from remit.dataset.splits import make_split, write_split
from remit.dataset.windows import open_dataset, row_groups
from remit.errors import RemitError
from remit.report import cohort as pictures
from remit.report import people, quality, spectra
from remit.report.drawing import canvas
from tests.unit.report.conftest import said_above
from tests.unit.report.recordings_drawn import CHAIN, FOUR, RATE, primary, recording, sheet

LABELS = {"a": 1, "b": 1, "c": 1, "d": 0, "e": 0, "f": 0, "g": 0, "h": None}
# 'a' lost two windows at the first electrode and one at the second; nothing is left of 'd'.
OF = {
    "a": {"flat": [(0, 1), (0, 4), (1, 4)]},
    "d": {"flat": [(3, window) for window in range(6)] + [(3, 6)], "size": 5.0},
}
AGES = {"a": 31, "b": 45, "c": 52, "d": 18, "e": 64, "f": 33, "g": 29}
SEXES = dict(zip(LABELS, "FFMMMFF", strict=False))  # nothing is known of 'h'


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    dataset = primary(folder, LABELS, **OF)
    data = open_dataset(dataset)
    parts = make_split(
        data.labels,
        Split(unlabelled="pretraining"),
        dataset=data.metadata["dataset"],
        content_sha256=data.metadata["content_sha256"],
        simulated=True,
    )
    write_split(folder / "split.json", parts)
    cells = {name: [str(AGES[name]), SEXES[name]] for name in AGES}
    rows = sheet(folder, LABELS | {"z": 1}, ["age", "sex"], **cells)
    return {"sheet": rows, "primary": dataset, "split": folder / "split.json"}


@pytest.fixture(scope="module")
def cohort(files):
    return people.read_cohort(**files, label="remission", use_bad=False)


@pytest.fixture
def drawn(monkeypatch):
    """Call a drawing and return its figure, which would else be closed."""
    from matplotlib import pyplot as plt

    kept = []
    for module in (pictures, quality, spectra):
        monkeypatch.setattr(module, "save", lambda figure, file: kept.append(figure))

    def draw(function, *arguments):
        function(*arguments, None)
        kept[-1].draw_without_rendering()  # what cannot be drawn fails here
        return kept[-1]

    yield draw
    plt.close("all")


def texts_of(figure):
    """Every text of a figure, with spaces for breaks."""
    found = [said_above(figure)]
    for axis in figure.axes:
        found += [text.get_text() for text in axis.texts]
        found += [axis.get_title(), axis.get_title(loc="left"), axis.get_xlabel()]
        found += [label.get_text() for label in axis.get_yticklabels()]
        found += [label.get_text() for label in axis.get_xticklabels()]
        legend = axis.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return [re.sub(r"\s+", " ", text) for text in found if text]


def summed(files):
    data = open_dataset(files["primary"])
    counting, density = quality.QualityCount(data), spectra.Spectra(data)
    for table in row_groups(files["primary"]):
        counting.update(table)
        density.update(table)
    return counting.found(), density


def test_the_flow_has_the_numbers_counted_by_hand(cohort, drawn):
    figure = drawn(pictures.draw_flow, cohort)
    found = texts_of(figure)
    for text in (
        "In the cohort sheet 9 participants, 9 recordings",
        "Not in the dataset: z (1 participant, 1 recording)",
        "Recordings read 8 recordings of 8 participants, 1.7 min",  # 8 x 13 s
        "Too short a rest to fill a window: 0.1 min",  # 8 x 1 s
        "Windows made 48 windows of 2 s, 8 participants",
        "Windows kept 40 windows, 7 participants",
        "No window kept: d (1 participant)",
        "class 1 3 participants 16 kept windows",
        "class 0 3 participants 18 kept windows",
        "no label 1 participant 6 kept windows",
    ):
        assert text in found, (text, found)
    (bad,) = [text for text in found if text.startswith("Marked bad")]
    assert bad.startswith("Marked bad: 8 windows (16.7%) reasons: ") and "flat 8" in bad
    parts = {text.split()[0]: text for text in found if text.split()[0] in ("train", "val", "test")}
    for part in ("train", "val", "test"):
        of = cohort.split.part(part)
        for label in (0, 1):
            count = sum(LABELS[name] == label for name in of)
            assert f"{count} class {label}" in parts[part], parts
    assert any(text.startswith("pretraining only 1 participant 1 no label") for text in found)
    (without,) = [part for part in parts.values() if "without a kept window" in part]
    assert "1 without a kept window" in without
    boxes = [text for axis in figure.axes for text in axis.texts if text.get_bbox_patch()]
    assert len(boxes) == 8 + 3 + 4


def test_demographics_show_every_known_value_once(cohort, drawn):
    figure = drawn(pictures.draw_demographics, cohort)
    age, sex = figure.axes
    assert age.get_title() == "age (n = 7; 2 missing)"
    assert sex.get_title() == "sex (n = 7; 2 missing)"
    dots = {line.get_label(): line for line in age.lines if line.get_marker() != "None"}
    for label, name in ((1, "class 1"), (0, "class 0")):
        own = sorted(AGES[who] for who in AGES if LABELS[who] == label)
        assert sorted(dots[name].get_xdata()) == own
        (text,) = [t for t in texts_of(figure) if t.startswith(f"{name} n = ")]
        assert text == f"{name} n = {len(own)}, median {np.median(own):g}"
    assert "class 1 n = 4, class 0 n = 4, no label n = 1" in texts_of(figure)[0]
    words = [label.get_text() for label in sex.get_yticklabels()]
    for container in sex.containers:
        label = int(container.get_label().split()[1]) if "class" in container.get_label() else None
        for word, bar in zip(words, container, strict=True):
            count = sum(SEXES[who] == word for who in SEXES if LABELS[who] == label)
            assert bar.get_width() == count
    assert dots["class 1"].get_marker() != dots["class 0"].get_marker()


def test_a_sheet_without_covariates_says_so(files, tmp_path, drawn):
    bare = people.read_cohort(
        **{**files, "sheet": sheet(tmp_path, LABELS)}, label="remission", use_bad=False
    )
    assert any(
        "no covariates" in text for text in texts_of(drawn(pictures.draw_demographics, bare))
    )
    figure = drawn(pictures.draw_split, bare)
    assert len(figure.axes) == 1 and len(figure.axes[0].containers) == 3


@pytest.mark.parametrize("text", ["$\\frac{$", "inf", "1e999", "-1e308"])
def test_what_stands_in_a_sheet_stops_no_picture(files, tmp_path, text):
    """A '$' is no formula, and what no axis reaches is a word."""
    cells = {name: [text if n < 2 else "45"] for n, name in enumerate(LABELS)}
    rows = sheet(tmp_path, LABELS | {"z": 1}, [f"cost ($) {text}"], **cells)
    cohort = people.read_cohort(**files | {"sheet": rows}, label=text, use_bad=False)
    for draw in (pictures.draw_demographics, pictures.draw_split):
        draw(cohort, tmp_path / "drawn.png")
        assert (tmp_path / "drawn.png").stat().st_size > 10_000


def test_dates_and_what_would_list_people_are_counted_and_many_numbers_binned(drawn, cohort):
    many = {f"p{n:03d}": n % 2 for n in range(400)}
    rows = [
        replace(
            cohort.rows[0],
            participant=name,
            remission=label,
            covariates={
                "age": str(20 + n % 50),
                "acq_date": f"2020-01-{1 + n % 28:02d}",
                "name": f"someone {n}",
            },
        )
        for n, (name, label) in enumerate(many.items())
    ]
    figure = drawn(pictures.draw_demographics, replace(cohort, rows=rows))
    age = figure.axes[0]
    heights = [-bar.get_height() for bar in age.patches]  # the axis points down
    assert len(age.patches) == 40 and max(heights) == pytest.approx(0.8)
    found = texts_of(figure)
    assert "28 different dates" in found and "400 different entries, not listed" in found
    assert not any("someone" in text or "2020" in text for text in found)


def test_the_split_shows_each_part_by_class(cohort, drawn):
    figure = drawn(pictures.draw_split, cohort)
    axis = figure.axes[0]
    parts = [label.get_text().split("\n")[0] for label in axis.get_xticklabels()]
    assert parts == ["train", "val", "test", "pretraining only"]
    classes = {"class 1": 1, "class 0": 0, "no label": None}
    for container in axis.containers:
        label = classes[container.get_label().split(" (")[0]]
        counts = [
            sum(LABELS[who] == label for who in cohort.split.part(part.replace(" ", "_")))
            for part in parts
        ]
        assert [bar.get_height() for bar in container] == counts
    ages = {line.get_label(): line for line in figure.axes[1].lines if line.get_marker() != "None"}
    own = sorted(AGES[who] for who in cohort.split.part("train") if who in AGES)
    assert sorted(ages["train"].get_xdata()) == own


def test_without_a_split_the_pictures_say_so(cohort, drawn):
    alone = replace(cohort, split=None)
    assert any("No split" in text for text in texts_of(drawn(pictures.draw_split, alone)))
    found = texts_of(drawn(pictures.draw_flow, alone))
    assert "no split" in found[0] and not any(text.startswith("train ") for text in found)


def test_the_map_of_quality_is_what_was_planted(files, cohort, drawn):
    found, _ = summed(files)
    order = found.participants
    a, d, b = (order.index(name) for name in "adb")
    assert found.windows_P.tolist() == [6] * 8
    assert found.bad_P[a] == 2 and found.bad_P[d] == 6 and found.bad_P.sum() == 8
    assert found.channel_PC[a].tolist() == pytest.approx([2 / 6, 1 / 6, 0, 0])
    assert found.channel_PC[d].tolist() == pytest.approx([0, 0, 0, 1])
    assert not found.channel_PC[b].any()
    assert found.reason_PR[a, found.reasons.index("flat")] == pytest.approx(2 / 6)
    assert found.time_PT[a].tolist() == [0, 1, 0, 0, 1, 0]
    assert not np.isnan(found.time_PT).any() and found.minute_T1[-1] == pytest.approx(0.2)
    figure = drawn(quality.draw_quality, cohort, found)
    by_channel, by_reason, by_time = (axis.images[0].get_array() for axis in figure.axes[:3])
    assert np.allclose(by_channel, found.channel_PC) and np.allclose(by_time, found.time_PT)
    assert np.allclose(by_reason[:, 0], found.bad_P / 6)
    assert "8 of 48 windows marked bad, 8 participants, 4 electrodes" in texts_of(figure)[0]
    assert "d (6)" in texts_of(figure)
    assert not any(axis.texts for axis in figure.axes[:3])


def test_where_no_window_is_bad_the_map_says_so(files, cohort, drawn):
    """An empty frame could as well be one that nothing was put into."""
    found, _ = summed(files)
    clean = replace(
        found,
        **{name: np.zeros_like(getattr(found, name)) for name in ("bad_P", "reason_PR", "time_PT")},
    )
    figure = drawn(quality.draw_quality, cohort, clean)
    by_channel, by_reason, by_time = (
        [text.get_text() for text in axis.texts] for axis in figure.axes[:3]
    )
    assert by_reason == by_time == ["no bad window\n(n=48 windows)"] and not by_channel
    clean = replace(clean, channel_PC=np.zeros_like(found.channel_PC))
    by_channel = drawn(quality.draw_quality, cohort, clean).axes[0]
    (said,) = by_channel.texts
    assert said.get_text() == "no electrode beyond\na threshold\n(n=48 windows)"
    for axis in by_channel.figure.axes[:3]:  # and it stays inside its panel
        box = axis.texts[0].get_window_extent()
        assert axis.get_window_extent().x0 <= box.x0 and box.x1 <= axis.get_window_extent().x1


def test_the_names_of_electrodes_stand_beside_their_marks():
    figure, ((axis,),) = canvas(1, 1, (3, 2.6), title="")
    spectra._draw_places(axis, ["AF7", "AF8", "TP9", "TP10", "Fz"])
    figure.draw_without_rendering()
    (marks,) = axis.collections
    at_C2 = axis.transData.transform(marks.get_offsets())
    texts = [text for text in axis.texts if text.get_text()]
    assert [text.get_text() for text in texts] == ["AF7", "AF8", "TP9", "TP10", "Fz"]
    radius = np.sqrt(marks.get_sizes()[0] / np.pi) * figure.dpi / 72
    for text in texts:
        box = text.get_window_extent()
        nearest_C2 = np.clip(at_C2, [box.x0, box.y0], [box.x1, box.y1])
        assert np.linalg.norm(nearest_C2 - at_C2, axis=1).min() >= radius
    names = {text.get_text(): text.get_window_extent() for text in texts}
    places = dict(zip(names, at_C2, strict=True))
    assert names["TP9"].x1 < places["TP9"][0] and names["TP10"].x0 > places["TP10"][0]


def test_many_people_are_joined_and_it_is_said(cohort, drawn):
    rng = np.random.default_rng(0)
    num = 2000
    part_P = rng.random(num).round(1)
    channel_PC = np.repeat(part_P[:, None], 4, axis=1)
    time_PT = np.repeat(part_P[:, None], 10, axis=1)
    time_PT[:, 7:] = np.nan
    found = quality.QualityMap(
        [f"p{n}" for n in range(num)],
        np.full(num, 10),
        part_P * 10,
        channel_PC,
        ["flat"],
        part_P[:, None],
        np.linspace(0, 4, 11),
        time_PT,
    )
    figure = drawn(quality.draw_quality, cohort, found)
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (60, 4) and (np.diff(shown[:, 0]) >= -1e-12).all()
    sizes = [len(part) for part in np.array_split(np.arange(num), 60)]
    assert shown[:, 0] @ sizes == pytest.approx(part_P.sum())
    assert np.isnan(np.ma.filled(figure.axes[2].images[0].get_array(), np.nan)[:, 7:]).all()
    assert "a row is the mean over 33 or 34" in texts_of(figure)[0]
    assert figure.get_size_inches()[1] < 15


def by_hand(files, channel):
    """Each participant's density in dB by numpy alone: Hann, 2 s, which is a whole window."""
    data = open_dataset(files["primary"])
    frame, found = data.frame(), {}
    taper_S = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    for who in LABELS:
        good = frame["good"][(frame["Participant"] == who).to_numpy()].to_numpy()
        if good.any():
            windows_WS = data.signal_WCS([who])[good][:, channel].astype(float)
            windows_WS = windows_WS - windows_WS.mean(axis=1, keepdims=True)
            power_F = (np.abs(np.fft.rfft(windows_WS * taper_S)) ** 2).mean(axis=0)
            found[who] = 10 * np.log10(2 * power_F / (RATE * (taper_S**2).sum()))
    return np.fft.rfftfreq(256, 1 / RATE), found


def test_spectra_are_the_mean_over_participants_with_students_interval(files, cohort, drawn):
    _, density = summed(files)
    figure = drawn(spectra.draw_spectra, cohort, density)
    for channel in (0, 3):
        hz_F, own = by_hand(files, channel)
        shown_F = (hz_F >= 1) & (hz_F <= 56)
        lines = {line.get_label(): line for line in figure.axes[channel].lines}
        for label, name, n in ((1, "class 1", 3), (0, "class 0", 3), (None, "no label", 1)):
            level_PF = np.stack([own[who] for who in own if LABELS[who] == label])[:, shown_F]
            assert len(level_PF) == n
            line = lines[name]
            assert np.allclose(line.get_xdata(), hz_F[shown_F])
            assert np.allclose(line.get_ydata(), level_PF.mean(axis=0), atol=1e-3)
            assert line.get_xdata()[np.argmax(line.get_ydata())] == 10.0  # as planted
            if n > 1:
                low, high = stats.t.interval(
                    0.95, n - 1, level_PF.mean(axis=0), stats.sem(level_PF, axis=0)
                )
                half_F = density.of_class[label].density_CF.interval()[channel]
                assert np.allclose(half_F, (high - low) / 2, atol=1e-3)
        assert figure.axes[channel].get_title() == FOUR[channel]
    assert len(figure.axes[0].collections) == 3  # intervals
    title = texts_of(figure)[0]
    assert "class 1 n = 3, class 0 n = 3, no label n = 1" in title
    assert "high-pass 0.5 Hz, low-pass 40 Hz" in title and "dB re 1 µV²/Hz" in [
        axis.get_ylabel() for axis in figure.axes
    ]
    edges = {line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 2}
    assert {4.0, 8.0, 13.0, 30.0, 40.0} <= edges  # bands and the low-pass


def test_the_power_of_a_band_is_the_sines(files, cohort, drawn):
    """A sine of 20 µV has 200 µV², 23 dB; with little noise beside it."""
    _, density = summed(files)
    figure = drawn(spectra.draw_spectra, cohort, density)
    (alpha,) = [axis for axis in figure.axes if axis.get_title().startswith("alpha")]
    marks = alpha.containers[0].lines[0]
    assert len(marks.get_xdata()) == 4
    assert np.allclose(marks.get_ydata(), 10 * np.log10(200), atol=0.5)
    assert [label.get_text() for label in alpha.get_xticklabels()] == list(FOUR)


def test_spectra_are_the_same_however_the_rows_come(files):
    """Row groups may end inside of a participant."""
    whole, pieces = (spectra.Spectra(open_dataset(files["primary"])) for _ in range(2))
    for table in row_groups(files["primary"]):
        whole.update(table)
        for first in range(0, table.num_rows, 5):
            pieces.update(table.slice(first, 5))
    for one in (whole, pieces):
        one.finish()
    for label, found in whole.of_class.items():
        other = pieces.of_class[label]
        assert other.participants == found.participants
        assert np.allclose(other.density_CF.mean, found.density_CF.mean, atol=1e-9)
        assert np.allclose(other.density_CF.squares, found.density_CF.squares, atol=1e-6)


def test_topographies_where_there_are_electrodes_enough(tmp_path, drawn):
    eight = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "O1", "O2")
    labels = {"a": 1, "b": 0}
    dataset = primary(tmp_path, labels, channels=eight)
    cohort = people.read_cohort(
        sheet=sheet(tmp_path, labels), primary=dataset, split=None, label="x", use_bad=False
    )
    _, density = summed({"primary": dataset})
    figure = drawn(spectra.draw_spectra, cohort, density)
    heads = [axis for axis in figure.axes if axis.images]
    titles = {axis.get_title() for axis in heads}
    assert len(heads) == 10 and "alpha, 8-13 Hz: class 1" in titles
    for axis in heads:
        image = axis.images[0].get_array()
        assert np.ptp(image[np.isfinite(image)]) > 0


def test_one_participant_without_a_label(tmp_path):
    labels = {"a": None}
    files = {"sheet": sheet(tmp_path, labels), "primary": primary(tmp_path, labels), "split": None}
    drawn = {name: tmp_path / f"{name}.png" for name in pictures.PICTURES}
    said = []
    options = {"label": "x", "use_bad": False}
    pictures.draw_cohort(**files, **options, pictures=drawn, log=said.append)
    first = {name: file.read_bytes() for name, file in drawn.items()}
    assert all(content.startswith(b"\x89PNG") and len(content) > 5000 for content in first.values())
    pictures.draw_cohort(**files, **options, pictures=drawn, log=said.append)
    assert {name: file.read_bytes() for name, file in drawn.items()} == first
    assert said[0] == f"cohort made: 5 pictures -> {tmp_path}"


def test_recordings_may_lie_anywhere(files, tmp_path):
    """The sheet of results/cohorts has the paths of the one it was made of, absolute ones too."""
    far = tmp_path / "far.tsv"
    text = files["sheet"].read_text().replace("\ta.edf", "\t/far/a.edf").replace("\tb.", "\t../b.")
    far.write_text(text)
    found = people.read_cohort(**{**files, "sheet": far}, label="x", use_bad=False)
    assert [row.path for row in found.rows[:2]] == ["/far/a.edf", "../b.edf"]


def test_nothing_kept_is_drawn_without_spectra(tmp_path, drawn):
    labels = {"d": 1}
    dataset = primary(tmp_path, labels, **OF)
    cohort = people.read_cohort(
        sheet=sheet(tmp_path, labels), primary=dataset, split=None, label="x", use_bad=False
    )
    found, density = summed({"primary": dataset})
    assert found.bad_P.tolist() == [6]
    figure = drawn(spectra.draw_spectra, cohort, density)
    assert "no window was kept" in texts_of(figure)[0]


def test_simulated_data_are_said_on_every_picture(files, cohort, drawn):
    found, density = summed(files)
    for draw, *more in (
        (pictures.draw_flow,),
        (pictures.draw_demographics,),
        (pictures.draw_split,),
        (quality.draw_quality, found),
        (spectra.draw_spectra, density),
    ):
        assert "SIMULATED DATA" in said_above(drawn(draw, cohort, *more))


def test_files_that_do_not_belong_together_are_refused(files, tmp_path, capsys):
    other = sheet(tmp_path, LABELS | {"a": 0})
    with pytest.raises(RemitError, match="participant a is not in .* or has another label there"):
        people.read_cohort(**{**files, "sheet": other}, label="x", use_bad=False)
    split = tmp_path / "split.json"
    split.write_text(
        re.sub(
            r'"content_sha256": "\w+"',
            f'"content_sha256": "{"0" * 64}"',
            files["split"].read_text(),
        )
    )
    with pytest.raises(RemitError, match="made from another dataset"):
        people.read_cohort(**{**files, "split": split}, label="x", use_bad=False)
    names = ["flow", "demographics", "quality", "spectra", "split-picture"]
    options = [text for name in names for text in (f"--{name}", str(tmp_path / f"{name}.png"))]
    given = {"sheet": files["sheet"], "primary": tmp_path / "none.parquet"}
    options += [text for name, file in given.items() for text in (f"--{name}", str(file))]
    settings = '{"label": "x", "use_bad_windows": false}'
    code = cli.main(["cohort-figures", "--settings", settings, *options, "--split"])
    error = capsys.readouterr().err
    assert code == 1 and error.startswith("remit: ") and error.count("\n") == 1


def test_the_chain_marks_what_the_map_shows():
    """A reason of the map is a reason of the chain: one function for both."""
    from remit.preprocessing.chain import CHANNEL_QUALITY, beyond_thresholds, preprocess

    made = preprocess(recording("a", 0, **OF["a"]), CHAIN)
    figures = {name: getattr(made, name) for name in CHANNEL_QUALITY}
    marked = beyond_thresholds(figures, CHAIN.quality)
    any_W = np.any([bad_WC.any(axis=1) for bad_WC in marked.values()], axis=0)
    assert (any_W == ~made.good).all() and any_W.sum() == 2
