"""Every kind of result has a record beside it, and what is stale or foreign along its chain is found."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from remit import cli, naming, provenance
from remit.planning import stage_version


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """raw -> a -> b, made by stages that have versions."""
    monkeypatch.chdir(tmp_path)
    for folder in ("raw", "results/a", "results/b"):
        (tmp_path / folder).mkdir(parents=True)
    names = "raw/x.edf", "results/a/a.parquet", "results/b/b.pt"
    return made(*(tmp_path / name for name in names))


def made(raw, a, b):
    for file in (raw, a, b):
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"content of {file.name}")
    nothing = {"run_id": "r1", "journal": "j1"}
    for stage, output, source in (("windows", a, raw), ("pretrain", b, a)):
        settings = {"result_version": stage_version(stage), "deep": {"seed": 4}, "split_seed": 5}
        provenance.write(
            [output], {"input": [source]}, stage=stage, settings=settings, mlflow=nothing
        )
    return raw, a, b


def found(file, version=stage_version):
    return [(one.status, one.file.name, one.what) for one in provenance.verify(file, version)]


def test_a_whole_chain_passes_and_says_what_it_holds(chain):
    *_, b = chain
    assert [(status, name) for status, name, _ in found(b)] == [
        ("pass", "b.pt"),
        ("pass", "a.parquet"),
    ]
    record = json.loads((b.parent / ".provenance/b.pt.json").read_text())
    assert record["sha256"] == hashlib.sha256(b.read_bytes()).hexdigest()
    assert record["seeds"] == {"deep.seed": 4, "split_seed": 5}
    assert record["mlflow"] == {"run_id": "r1", "journal": "j1"}
    assert record["result_version"] == stage_version("pretrain")
    assert len(record["git_commit"]) >= 7 and len(record["environment"]["lock_sha256"]) == 64
    assert record["inputs"]["input"][0]["path"] == "../a/a.parquet"


def change(file):
    file.write_text("something else")


DAMAGED = (
    {"settings": []},
    {"stage": 1},
    {"environment": None},
    {"mlflow": []},
    {"inputs": {"input": [{"path": 3, "sha256": ""}]}},
    {"sha256": "a\0b"},
    {"file": None},
)


def damage(file, /, **values):
    place = provenance.record_of(file)
    place.write_text(json.dumps(json.loads(place.read_text()) | values))


@pytest.mark.parametrize(
    ("do", "says"),
    [
        (lambda raw, a, b: change(b), ("fail", "b.pt", "foreign: not as 'pretrain' wrote it")),
        (lambda raw, a, b: change(a), ("fail", "b.pt", "stale: made of another")),
        (
            # Without its record it is not foreign itself; but what was made of it knows another.
            lambda raw, a, b: (change(a), provenance.record_of(a).unlink()),
            ("fail", "b.pt", "stale: made of another"),
        ),
        (lambda raw, a, b: change(raw), ("fail", "a.parquet", "stale: made of another")),
        (lambda raw, a, b: raw.unlink(), ("warn", "a.parquet", "not there and not compared")),
        (lambda raw, a, b: a.unlink(), ("warn", "b.pt", "not there and not compared")),
        (
            lambda raw, a, b: provenance.record_of(b).unlink(),
            ("fail", "b.pt", "foreign: nothing beside it says"),
        ),
        (
            lambda raw, a, b: provenance.record_of(b).write_text("{}"),
            ("fail", "b.pt", "foreign: "),
        ),
        *(
            (
                lambda raw, a, b, bad=bad: damage(b, **bad),
                ("fail", "b.pt", "foreign: "),
            )
            for bad in DAMAGED
        ),
        (
            lambda raw, a, b: shutil.copy(a, b),
            ("fail", "b.pt", "foreign: not as"),
        ),
    ],
    ids=[
        "result",
        "input",
        "input_without_record",
        "source",
        "no_source",
        "no_input",
        "no_record",
        "bad_record",
    ]
    + [next(iter(bad)) for bad in DAMAGED]
    + ["copied"],
)
def test_what_is_stale_or_foreign_is_said(chain, do, says):
    do(*chain)
    status, name, text = says
    lines = found(chain[2])
    assert any((one[0], one[1]) == (status, name) and text in one[2] for one in lines), lines
    assert all("\n" not in one[2] for one in lines)


@pytest.mark.parametrize("to", ["results/b/c.pt", "results/c/b.pt"])
def test_a_result_put_elsewhere_with_its_record_is_foreign(chain, to):
    """One model in the place of another, or of one fold in that of another: the name is what it is."""
    *_, b = chain
    place = Path(to).resolve()
    for old, new in ((b, place), (provenance.record_of(b), provenance.record_of(place))):
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(old, new)
    (line,) = [one for one in found(place) if one[0] == "fail"]
    assert line[2].startswith("foreign: it was made as b/b.pt;")


def test_a_record_prints_no_line_of_its_own(chain):
    *_, b = chain
    damage(b, stage="x\npass  b.pt: as 'pretrain' made it\x1b[2J")
    assert all("\n" not in what and "\x1b" not in what for *_, what in found(b))


def test_an_input_that_changes_while_it_is_read_makes_the_result_stale(
    tmp_path, monkeypatch, capsys
):
    """The record would else say the new content's hash of what was made of the old."""
    monkeypatch.chdir(tmp_path)
    Path("x.edf").write_text("old")

    whole = {"text": None}

    def run(args):
        if whole["text"] is None:
            Path("x.edf").write_text("new")
        args.output.write_text(f"made of {whole['text'] or 'old'}")

    def parser():
        made = cli.Parser()
        made.add_argument("--input", type=Path)
        made.add_argument("--output", type=Path)
        settings = {"result_version": stage_version("windows")}
        made.set_defaults(run=run, makes=("output",), settings=settings, command="windows")
        return made

    monkeypatch.setattr(cli, "_parser", parser)
    assert cli.main(["--input", "x.edf", "--output", "y.parquet"]) == 0
    assert "warning: x.edf was changed while this command read it" in capsys.readouterr().out
    (line,) = [one for one in found(Path("y.parquet")) if one[0] == "fail"]
    assert line[2].startswith("stale: made of another x.edf")
    whole["text"] = "new"
    assert cli.main(["--input", "x.edf", "--output", "y.parquet"]) == 0
    assert "warning" not in capsys.readouterr().out
    assert [status for status, *_ in found(Path("y.parquet"))] == ["pass"]


def test_a_raised_version_makes_it_stale(chain):
    lines = found(chain[2], lambda stage: "9" if stage == "windows" else stage_version(stage))
    (line,) = [one for one in lines if one[0] == "fail"]
    assert line[1] == "a.parquet" and "of 'windows', which is 9 now" in line[2]


def test_another_environment_is_a_warning(chain, monkeypatch):
    other = {**provenance.environment(), "installed_sha256": "0"}
    monkeypatch.setattr(provenance, "environment", lambda: other)
    assert {status for status, _, _ in found(chain[2])} == {"warn"}


def test_results_can_be_moved_as_a_whole(chain, tmp_path):
    new = tmp_path / "elsewhere"
    new.mkdir()
    for name in ("raw", "results"):
        shutil.move(tmp_path / name, new / name)
    assert {status for status, _, _ in found(new / "results/b/b.pt")} == {"pass"}


def test_touching_changes_nothing_and_the_hash_of_a_changed_input_is_not_taken_from_its_record(
    chain,
):
    _, a, b = chain
    os.utime(a)
    assert {status for status, _, _ in found(b)} == {"pass"}
    size = a.stat().st_size
    a.write_text("x" * size)  # the same length
    provenance.write([b], {"input": [a]}, stage="pretrain", settings={}, mlflow={})
    record = provenance.read(b)
    assert record["inputs"]["input"][0]["sha256"] == hashlib.sha256(a.read_bytes()).hexdigest()


def test_results_may_be_a_link_to_another_disk(tmp_path, monkeypatch):
    for folder in ("disk/far/away/results/windows/c", "work/raw"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "work/results").symlink_to(tmp_path / "disk/far/away/results")
    monkeypatch.chdir(tmp_path / "work")
    names = "raw/x.edf", "results/windows/c/x.parquet", "results/splits/d_split.json"
    made(*map(Path, names))
    for start in (Path(), tmp_path / "work"):
        lines = found(start / names[2])
        assert [(status, name) for status, name, _ in lines] == [
            ("pass", "d_split.json"),
            ("pass", "x.parquet"),
        ], lines
    provenance.record_of(Path(names[1])).unlink()  # the chain breaks off, and that is said
    lines = found(Path(names[2]))
    assert [(status, name) for status, name, _ in lines] == [
        ("pass", "d_split.json"),
        ("warn", "x.parquet"),
    ], lines


def test_the_command_takes_files_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("none", "."):
        assert cli.main(["verify", name]) == 1
        said = capsys.readouterr().err
        assert "expected a result's file" in said and said.count("\n") == 1


def test_a_backbone_with_a_record_needs_no_diagnostics(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    backbone = Path("results/pretrained/mamba2_eeg_d32_l1_m20_mae.pt")
    for folder in ("raw", "results/windows", backbone.parent):
        Path(folder).mkdir(parents=True)
    made(Path("raw/x.edf"), Path("results/windows/x.parquet"), backbone)
    assert cli.main(["verify", str(backbone)]) == 0
    said = capsys.readouterr().out
    assert "pass  results/pretrained" in said and "warn  its diagnostics are not made" in said


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_record_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch, capsys, told):
    """Whatever the reason: the result is there, and Snakemake would delete it."""
    monkeypatch.chdir(tmp_path)

    def broken(*_, **__):
        os.kill(os.getpid(), told)
        raise ValueError("odd")

    monkeypatch.setattr(provenance, "write", broken)
    settings = {"cohort": "c", "source": {"simulate": {"participants": 4}}}
    words = ["cohort", "sheet", "--settings", json.dumps(settings), "--output", "c.tsv"]
    assert cli.main(words) == 0
    assert "could not be written (ValueError: odd)" in capsys.readouterr().out
    assert Path("c.tsv").exists()


@pytest.mark.parametrize(
    ("file", "pretrained", "fold"),
    [
        ("results/pretrained/mamba2_eeg_d32_l1_m20_mae.pt", True, False),
        ("results/pretrained/folds/r1f2/mamba2_eeg_d32_l1_m20_mae.pt", True, True),
        ("results/finetuned/mamba2_eeg_d32_l1_m20_mae_finetuned_best.pt", False, False),
        ("results/pretrained/mamba2_eeg_d32_l1_m20_mae.json", False, False),
    ],
)
def test_which_files_are_backbones(file, pretrained, fold):
    assert (naming.is_pretrained(file), naming.is_of_fold(file)) == (pretrained, fold)


# What stands under results/ and is no result: MLflow's, Snakemake's, and the log of test reads.
NO_RESULTS = {
    "logs",
    "benchmarks",
    "mlflow.db",
    "mlflow_artifacts",
    "mlflow_journal",
    "test_reads.tsv",
}


def results_of(folder):
    """The results below a folder, by the kind of their name; no file is of no kind."""
    by_kind = {}
    for file in sorted((folder / "results").rglob("*")):
        place = file.relative_to(folder)
        if file.is_dir() or ".provenance" in place.parts or place.parts[1] in NO_RESULTS:
            continue
        if place.name == ".lock":
            continue
        kind, _ = naming.read_target(str(place)) or (str(place), {})
        by_kind.setdefault(kind, []).append(file)
    return by_kind


def check_every_result(folder, expected):
    """Each result of a built folder has a record, and all of its chain is as it was made."""
    by_kind = results_of(folder)
    assert expected <= set(by_kind), expected - set(by_kind)
    for kind, files in by_kind.items():
        for file in files:
            lines = provenance.verify(file, stage_version)
            assert lines and {one.status for one in lines} == {"pass"}, (kind, lines)
            record = provenance.read(file)
            assert record["environment"]["lock_sha256"] and record["git_commit"]
            assert "result_version" in record["settings"] or record["stage"] == "sheet"
            if kind in ("pretrained", "pretrained_fold", "finetuned", "finetuned_card"):
                assert len(record["mlflow"]["run_id"]) == 32 and record["seeds"]
    return by_kind
