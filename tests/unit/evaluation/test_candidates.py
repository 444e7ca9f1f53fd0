"""Tables of what is compared: right numbers, nobody's label, and files that belong together."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import linalg

from remit.dataset.primary import build_primary
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.evaluation import candidates, window_tables
from remit.evaluation.candidates import (
    Absent,
    Cohort,
    Table,
    covariates,
    date_or_site,
    prevalence,
    sheet_order,
)
from remit.evaluation.features import features
from remit.evaluation.window_tables import (
    band_power,
    embeddings,
    embeddings_by_fold,
    length_and_quality,
    tangent_space,
)
from remit.recordings.cohort import SheetRow
from tests.unit.dataset.conftest import (  # noqa: F401
    CHANNELS,
    make_recording,
    make_windows,
    write,
)

NAMES = ("p1", "p2", "p3", "p4")
MODEL = "mamba2_eeg_d8_l1_m20_mae"
EVERYBODY = np.ones(4, dtype=bool)


@dataclass(frozen=True)
class People:
    """Folds without labels: whatever a table reads of them stands here."""

    names: tuple[str, ...] = NAMES
    unlabelled: list[str] = field(default_factory=list)
    dataset: str = "8s_cz_primary_dataset"
    content_sha256: str = "ab"
    path: str = "folds.json"
    repeats: int = 2
    folds: int = 2

    def test(self, repeat: int, fold: int) -> list[str]:
        return [name for place, name in enumerate(self.names) if (place + repeat) % 2 == fold]


def sheet(*columns: str, **cells: list[str]) -> list[SheetRow]:
    """One recording for each of p1, p2, ... in the order of the columns' cells."""
    count = len(next(iter(cells.values())))
    return [
        SheetRow(f"p{n + 1}", f"r{n}", f"r{n}.edf", None, n % 2, {c: cells[c][n] for c in cells})
        for n in range(count)
    ]


def frame(table: Table) -> pd.DataFrame:
    rows_NX, participant_N = table.rows(0, 0, EVERYBODY)
    index = [table.participants[p] for p in participant_N]
    return pd.DataFrame(rows_NX, index, table.columns)


# --- the sheet


def test_covariates_are_numbers_and_a_column_per_category():
    rows = sheet(
        age=["20", "31,5", "40.5", "n/a"],
        sex=["F", "M", "F", "M"],
        drug=["a", "b", "a", "b"],
        group=["x", "y", "x", ""],
        id=["k1", "k2", "k3", "k4"],
        empty=["", "n/a", "NaN", ""],
        same=["1", "1", "1", "1"],
        birthDate=["1980-01-01", "1981-01-01", "1982-01-01", "1983-01-01"],
        date=["2020-01-01"] * 4,
        site=["A", "B", "A", "B"],
    )
    table = covariates(rows, People())
    assert (table.name, table.kind) == ("covariates only", "baseline")
    found = frame(table)
    assert found["age"].tolist()[:3] == [20, 31.5, 40.5]
    assert np.isnan(found.loc["p4", "age"])
    assert found["sex=M"].tolist() == [0, 1, 0, 1]
    assert "sex=F" not in found
    assert found["group=y"].tolist()[:3] == [0, 1, 0]
    assert np.isnan(found.loc["p4", "group=y"])
    assert set(found) == {"age", "sex=M", "drug=b", "group=y"}
    notes = " | ".join(table.notes)
    assert "id: left out, 4 different texts" in notes
    assert "birthDate: left out, 4 different texts" in notes
    assert "empty: left out, missing for everybody" in notes
    assert "same: left out, the same for everybody" in notes
    assert "age: missing for 1 of 4" in notes


def test_three_categories_have_a_column_each():
    names = tuple(f"p{n}" for n in range(1, 7))
    table = covariates(sheet(drug=list("abcabc")), People(names=names))
    assert table.columns == ["drug=a", "drug=b", "drug=c"]
    assert table.rows_NX.tolist() == np.vstack([np.eye(3), np.eye(3)]).tolist()


def test_several_recordings_of_a_participant_are_averaged():
    rows = sheet(age=["20", "30", "40", "50"], hand=["l", "r", "r", "l"])
    rows += [replace(rows[0], recording="again", covariates={"age": "22", "hand": "r"})]
    found = frame(covariates(rows, People()))
    assert found.loc["p1"].tolist() == [21, 0.5]
    assert found.index.tolist() == list(NAMES)


def test_without_covariates_there_is_no_candidate_and_it_says_why():
    nothing = covariates([replace(row, covariates={}) for row in sheet(a=["1"] * 4)], People())
    assert isinstance(nothing, Absent)
    assert "no columns beyond" in nothing.why
    constant = covariates(sheet(age=["1"] * 4), People())
    assert isinstance(constant, Absent)
    assert constant.why == "age: left out, the same for everybody"


def test_a_participant_who_is_not_in_the_sheet_is_named():
    rows = sheet(age=["20", "30", "40"])
    for make in (covariates, date_or_site, sheet_order):
        with pytest.raises(RemitError, match="participant p4 is not in the cohort sheet"):
            make(rows, People())


def test_dates_are_days_and_sites_columns():
    rows = sheet(
        acq_time=["2020-01-01T12:00:00", "2020-01-03", "20200111", ""],
        siteName=["A", "B", "A", "B"],
        birth_date=["1980-01-01"] * 4,
        age=["1", "2", "3", "4"],
    )
    table = date_or_site(rows, People())
    assert table.kind == "nuisance"
    found = frame(table)
    assert set(found) == {"acq_time", "siteName=B"}
    assert found["acq_time"].tolist()[:3] == [0, 1.5, 9.5]
    assert np.isnan(found.loc["p4", "acq_time"])
    years = date_or_site(sheet(year=["2018", "2018", "2019", "2019"]), People())
    assert frame(years)["year"].tolist() == [0, 0, 1, 1]


def test_a_date_that_cannot_be_read_makes_groups_and_a_note():
    table = date_or_site(sheet(date=["3.1.20", "3.1.20", "4.1.20", "4.1.20"]), People())
    assert isinstance(table, Table) and table.columns == ["date=4.1.20"]
    assert table.notes[0] == "date: holds what is no date ('3.1.20'), taken as groups"
    device = date_or_site(sheet(acquisition_device=["a", "b", "b", "a"]), People())
    assert isinstance(device, Table) and device.columns == ["acquisition_device=b"]


def test_without_a_date_or_site_there_is_no_candidate():
    nothing = date_or_site(sheet(age=["1", "2", "3", "4"]), People())
    assert isinstance(nothing, Absent)
    assert "no column with a date or a site" in nothing.why
    assert nothing.kind == "nuisance"


def test_the_order_of_the_sheet_is_a_table_of_its_own():
    rows = sheet(age=["1", "2", "3", "4"])[::-1]
    assert frame(sheet_order(rows, People()))["place"].tolist() == [3, 2, 1, 0]


def test_prevalence_has_everybody_and_no_column():
    table = prevalence(People())
    rows_NX, participant_N = table.rows(1, 1, EVERYBODY)
    assert rows_NX.shape == (4, 0)
    assert participant_N.tolist() == [0, 1, 2, 3]
    assert table.kind == "chance"


# --- tables


def test_a_table_refuses_people_without_rows_and_infinite_values():
    with pytest.raises(RemitError, match="participant p2, p4 has no row"):
        Table("t", "model", None, NAMES, np.zeros((3, 2)), np.array([0, 0, 2]))
    rows_NX = np.zeros((4, 1))
    rows_NX[2] = np.inf
    with pytest.raises(RemitError, match="participant p3 has an infinite value"):
        Table("t", "model", None, NAMES, rows_NX, np.arange(4))


def test_no_table_can_read_a_label():
    known = {name for name in vars(Cohort) if not name.startswith("_")}
    assert known == {
        *("path", "dataset", "content_sha256", "names", "unlabelled", "repeats", "folds", "test"),
    }
    for module in (candidates, window_tables):
        source = Path(module.__file__).read_text(encoding="utf-8")
        for word in ("Remission", ".labels", "label_P", ".remission"):
            assert word not in source


# --- windows


@pytest.fixture
def cohort(write, make_windows, tmp_path):  # noqa: F811
    """p0 has no label; p2 has two recordings; two windows of p3 are bad."""
    files = [
        write("p0", "p0-a", 3, remission=None),
        write("p1", "p1-a", 5, remission=1),
        write("p2", "p2-a", 4, 3),
        write("p2", "p2-b", 2),
        write("p3", "p3-a", windows=make_windows(6, seed=8, bad=2)),
        write("p4", "p4-a", 3),
    ]
    file = tmp_path / "primary.parquet"
    build_primary(files, file, cohort="made", channels=CHANNELS)
    features(primary=file, output=tmp_path / "features.parquet", settings={}, log=lambda _: None)
    dataset = open_dataset(file)
    people = People(
        unlabelled=["p0"],
        dataset=dataset.metadata["dataset"],
        content_sha256=dataset.metadata["content_sha256"],
    )
    return dataset, people, tmp_path / "features.parquet"


def test_length_and_quality_are_those_of_the_windows(cohort):
    dataset, people, _ = cohort
    table = length_and_quality(dataset, people)
    found = frame(table)
    assert found["windows"].tolist() == [5, 9, 6, 3]
    assert found["recordings"].tolist() == [1, 2, 1, 1]
    assert found["bad_fraction"].tolist() == pytest.approx([0, 0, 1 / 3, 0])
    assert "contact_fraction: left out, missing for everybody" in table.notes
    assert any(note.startswith("worn_fraction: left out") for note in table.notes)
    whole = dataset.table(["Participant", "flat_fraction"]).to_pandas()
    for name in NAMES:
        own = np.stack(whole.loc[whole["Participant"] == name, "flat_fraction"].tolist())
        assert found.loc[name, "flat_fraction"] == pytest.approx(own.mean())
    seconds = sum(s["seconds"] for s in dataset.metadata["sources"].values())
    assert seconds > 0


def test_minutes_follow_the_length_of_the_recordings(write, tmp_path):  # noqa: F811
    rng = np.random.default_rng(0)
    files = []
    for n, length in enumerate((100, 200, 300, 400)):
        signal_CS = rng.standard_normal((4, length)).astype(np.float32)
        files.append(write(f"p{n + 1}", f"r{n}", 2, signal_CS=signal_CS, segments=_whole(length)))
    build_primary(files, tmp_path / "p.parquet", cohort="made", channels=CHANNELS)
    dataset = open_dataset(tmp_path / "p.parquet")
    people = People(
        dataset=dataset.metadata["dataset"], content_sha256=dataset.metadata["content_sha256"]
    )
    minutes = frame(length_and_quality(dataset, people))["minutes"]
    assert minutes.tolist() == pytest.approx([n * 100 / 32 / 60 for n in (1, 2, 3, 4)])


def _whole(length: int):
    from remit.recordings.recording import Segment

    return (Segment(0, length, 0.0),)


def test_band_power_has_the_good_windows_of_labelled_people(cohort):
    _, people, file = cohort
    table = band_power(file, people)
    rows = pd.read_parquet(file)
    rows = rows[rows["good"] & (rows["Participant"] != "p0")]
    assert np.bincount(table.participant_N).tolist() == [5, 9, 4, 3]
    assert table.columns[0] == "power_delta_AF7"
    assert table.columns[-1] == "asymmetry_alpha_TP9-TP10"
    assert not [name for name in table.columns if name.startswith(("relative", "coherence"))]
    np.testing.assert_array_equal(table.rows_NX, rows[table.columns].to_numpy(np.float64))


def test_files_of_another_dataset_do_not_belong_together(cohort):
    dataset, people, file = cohort
    other = replace(people, content_sha256="0" * 64)
    for make in (
        lambda: band_power(file, other),
        lambda: length_and_quality(dataset, other),
        lambda: tangent_space(dataset, other),
    ):
        with pytest.raises(RemitError, match="content_sha256 is .* do not belong together"):
            make()
    channels = replace(people, dataset="8s_cz_primary_dataset")
    with pytest.raises(RemitError, match="dataset is 2s_af7-.*; expected 8s_cz_"):
        band_power(file, channels)
    with pytest.raises(RemitError, match="is no file of features"):
        band_power(dataset.path, people)
    with pytest.raises(RemitError, match="participant p0 is not in folds.json"):
        band_power(file, replace(people, unlabelled=[]))


# --- tangent space


def slow_tangent(covariance_PCC: np.ndarray, train: list[int]) -> np.ndarray:
    """Fixed-point iteration and matrix logarithms, one matrix after the other."""
    mean_CC = np.mean(covariance_PCC[train], axis=0)
    for _ in range(100):
        root = linalg.sqrtm(mean_CC).real
        back = linalg.inv(root)
        step = np.mean([linalg.logm(back @ covariance_PCC[p] @ back).real for p in train], axis=0)
        mean_CC = root @ linalg.expm(step) @ root
    back = linalg.inv(linalg.sqrtm(mean_CC).real)
    rows = []
    for matrix_CC in covariance_PCC:
        log_CC = linalg.logm(back @ matrix_CC @ back).real
        rows.append(
            [
                log_CC[a, b] * (1 if a == b else 2**0.5)
                for a in range(len(log_CC))
                for b in range(a, len(log_CC))
            ]
        )
    return np.array(rows)


def slow_covariance(dataset, name: str) -> np.ndarray:
    """Chen et al. (2010), equation 23, of each good window."""
    frame = dataset.frame()
    matrices = []
    for window_CS in dataset.signal_WCS()[(frame["good"] & (frame["Participant"] == name))]:
        centred_CS = window_CS.astype(float) - window_CS.mean(axis=1, keepdims=True, dtype=float)
        (C, S), plain = centred_CS.shape, centred_CS @ centred_CS.T / centred_CS.shape[1]
        square, trace = (plain**2).sum(), np.trace(plain)
        # As scikit-learn has it: for many electrodes, where 2 / C is nothing.
        part = min(
            1,
            (square / C**2 + (trace / C) ** 2) / ((S + 1) * (square / C**2 - (trace / C) ** 2 / C)),
        )
        matrices.append((1 - part) * plain + part * trace / C * np.eye(C))
    return np.mean(matrices, axis=0)


def test_tangent_space_is_that_of_a_loop(cohort):
    dataset, people, _ = cohort
    table = tangent_space(dataset, people)
    covariance_PCC = np.stack([slow_covariance(dataset, name) for name in NAMES])
    np.testing.assert_allclose(table.covariance_PCC, covariance_PCC, rtol=1e-6)
    train_P = np.array([True, False, True, True])
    rows_PX, participant_N = table.rows(0, 1, train_P)
    assert participant_N.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(rows_PX, slow_tangent(covariance_PCC, [0, 2, 3]), atol=1e-6)
    np.testing.assert_allclose(rows_PX[train_P].mean(axis=0), 0, atol=1e-6)
    assert table.columns[:5] == [
        *(f"tangent_AF7-{name}" for name in CHANNELS),
        "tangent_AF8-AF8",
    ]
    assert len(table.columns) == rows_PX.shape[1] == 10


def test_the_reference_of_tangent_space_does_not_know_the_tested(cohort):
    dataset, people, _ = cohort
    table = tangent_space(dataset, people)
    other_PCC = table.covariance_PCC.copy()
    other_PCC[1] *= 7
    other = replace(table, covariance_PCC=other_PCC, _made={})
    without, everybody = np.array([True, False, True, True]), EVERYBODY
    kept = [0, 2, 3]
    one, two = table.rows(0, 0, without)[0], other.rows(0, 0, without)[0]
    assert one[kept].tobytes() == two[kept].tobytes()
    assert not np.allclose(one[1], two[1])
    assert not np.allclose(
        table.rows(0, 0, everybody)[0][kept], other.rows(0, 0, everybody)[0][kept]
    )
    assert not np.allclose(one, table.rows(0, 0, everybody)[0])
    assert table.rows_NX.size == 0  # nothing to be taken outside a fold


def test_tangent_space_bears_a_common_reference_and_names_the_silent(
    write,  # noqa: F811
    make_windows,  # noqa: F811
    tmp_path,
):
    files = []
    for n, name in enumerate(NAMES):
        windows = make_windows(6, seed=n)
        signal_WCS = windows.signal_WCS - windows.signal_WCS.mean(axis=1, keepdims=True)
        if name == "p3":
            signal_WCS = np.zeros_like(signal_WCS)
        files.append(write(name, f"{name}-a", windows=replace(windows, signal_WCS=signal_WCS)))
    build_primary(files, tmp_path / "p.parquet", cohort="made", channels=CHANNELS)
    dataset = open_dataset(tmp_path / "p.parquet")
    people = People(
        dataset=dataset.metadata["dataset"], content_sha256=dataset.metadata["content_sha256"]
    )
    with pytest.raises(RemitError, match="the electrodes of participant p3 hold no signal"):
        tangent_space(dataset, people)
    three = replace(people, names=("p1", "p2", "p4"), unlabelled=["p3"])
    rows_PX, _ = tangent_space(dataset, three).rows(0, 0, np.array([True, True, False]))
    assert np.isfinite(rows_PX).all()
    assert np.abs(rows_PX).max() < 10


# --- embeddings


def write_embeddings(file: Path, people: dict[str, int], seed: int = 0, **said) -> Path:
    metadata = {
        "kind": "embeddings",
        "model": MODEL,
        "random": False,
        "dataset": People().dataset,
        "content_sha256": People().content_sha256,
        "seen": [],
        "repeat": None,
        "fold": None,
    } | said
    names = [name for name, count in people.items() for _ in range(count)]
    flat = np.random.default_rng(seed).standard_normal(8 * len(names)).astype(np.float32)
    table = pa.table(
        {
            "Participant": names,
            "recording": names,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat), 8),
        }
    ).replace_schema_metadata({b"remit": json.dumps(metadata)})
    pq.write_table(table, file, row_group_size=3)
    return file


WINDOWS = {"p0": 2, "p1": 3, "p2": 1, "p3": 4, "p4": 2}


def test_embeddings_are_the_windows_of_labelled_people(tmp_path):
    file = write_embeddings(tmp_path / "e.parquet", WINDOWS, seen=["p0", "p3"])
    table = embeddings(file, People(unlabelled=["p0"]), model=MODEL)
    expected_ND = np.stack(pq.read_table(file).column("embedding").to_pylist())[2:]
    assert table.rows_NX.dtype == np.float64
    np.testing.assert_array_equal(table.rows_NX, expected_ND)
    assert table.participant_N.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 3, 3]
    assert (table.name, table.kind, table.seen) == (MODEL, "model", ("p3",))
    write_embeddings(file, WINDOWS, random=True)
    table = embeddings(file, People(unlabelled=["p0"]), model=MODEL, random=True)
    assert (table.name, table.kind) == ("random weights", "baseline")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model": "mamba2_eeg_d8_l2_m20_mae"}, "model is mamba2_eeg_d8_l2_m20_mae; expected"),
        ({"random": True}, "random is True; expected False"),
        ({"content_sha256": "cd"}, "content_sha256 is cd; expected ab as in folds.json"),
        ({"dataset": "8s_fz_primary_dataset"}, "dataset is 8s_fz_.*; expected 8s_cz"),
        ({"kind": "features"}, "is no file of embeddings"),
    ],
)
def test_embeddings_that_do_not_belong_are_refused(tmp_path, said, message):
    file = write_embeddings(tmp_path / "e.parquet", WINDOWS, **said)
    with pytest.raises(RemitError, match=message):
        embeddings(file, People(unlabelled=["p0"]), model=MODEL)


def test_people_of_embeddings_are_those_of_the_folds(tmp_path):
    file = write_embeddings(tmp_path / "e.parquet", WINDOWS)
    with pytest.raises(RemitError, match="participant p0 is not in folds.json"):
        embeddings(file, People(), model=MODEL)
    write_embeddings(file, {"p1": 2, "p2": 1, "p4": 3})
    with pytest.raises(RemitError, match="participant p3 has no row"):
        embeddings(file, People(), model=MODEL)
    with pytest.raises(RemitError, match="cannot be read"):
        embeddings(tmp_path / "nowhere.parquet", People(), model=MODEL)


@pytest.fixture
def by_fold(tmp_path) -> list[Path]:
    return [
        write_embeddings(
            tmp_path / f"r{repeat}f{fold}.parquet",
            {name: WINDOWS[name] for name in NAMES},
            seed=10 * repeat + fold,
            repeat=repeat,
            fold=fold,
            seen=[name for name in NAMES if name not in People().test(repeat - 1, fold - 1)],
        )
        for repeat in (1, 2)
        for fold in (1, 2)
    ]


def training(repeat: int, fold: int) -> np.ndarray:
    return np.array([name not in People().test(repeat, fold) for name in NAMES])


def test_each_fold_has_the_rows_of_its_own_backbone(by_fold, tmp_path):
    whole = write_embeddings(tmp_path / "all.parquet", dict.fromkeys(NAMES, 2), seed=99)
    table = embeddings_by_fold(by_fold[::-1], People(), model=MODEL, everybody=whole)
    for repeat in range(2):
        for fold in range(2):
            rows_NX, participant_N = table.rows(repeat, fold, training(repeat, fold))
            file = tmp_path / f"r{repeat + 1}f{fold + 1}.parquet"
            expected_ND = np.stack(pq.read_table(file).column("embedding").to_pylist())
            np.testing.assert_array_equal(rows_NX, expected_ND)
            assert np.bincount(participant_N).tolist() == [3, 1, 4, 2]
    assert len(table.rows(0, 0, EVERYBODY)[0]) == 8
    assert table.rows_NX.size == 0
    alone = embeddings_by_fold(by_fold, People(), model=MODEL)
    with pytest.raises(RemitError, match="pretrained on everybody"):
        alone.rows(0, 0, EVERYBODY)


def test_rows_of_a_fold_serve_no_other_fit(by_fold):
    table = embeddings_by_fold(by_fold, People(), model=MODEL)
    with pytest.raises(
        RemitError, match="fold 2 of repeat 1 tests p2, p4, but p1, p3 are left out"
    ):
        table.rows(0, 1, training(0, 0))
    leave_p1_out = np.array([False, True, True, True])
    with pytest.raises(RemitError, match="a fit on 3 of 4 participants; expected one of the folds"):
        table.rows(-1, 0, leave_p1_out)


def test_a_backbone_that_saw_the_tested_is_refused_by_name(by_fold):
    write_embeddings(by_fold[1], dict.fromkeys(NAMES, 1), repeat=1, fold=2, seen=["p1", "p2", "p3"])
    with pytest.raises(RemitError, match="has seen participant p2, whom fold 2 of repeat 1 tests"):
        embeddings_by_fold(by_fold, People(), model=MODEL)


def test_every_fold_has_one_file(by_fold, tmp_path):
    with pytest.raises(RemitError, match="no embeddings for r2f1"):
        embeddings_by_fold([by_fold[0], by_fold[1], by_fold[3]], People(), model=MODEL)
    with pytest.raises(RemitError, match="both are of repeat 1, fold 1"):
        embeddings_by_fold([*by_fold, by_fold[0]], People(), model=MODEL)
    whole = write_embeddings(tmp_path / "all.parquet", dict.fromkeys(NAMES, 2))
    with pytest.raises(RemitError, match="is of repeat None, fold None"):
        embeddings_by_fold([*by_fold, whole], People(), model=MODEL)
