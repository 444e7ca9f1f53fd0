"""What comes from others is data: nothing in it is run, and nothing leaves the roots or the machine."""

import ast
import io
import json
import os
import pickle
import re
import shlex
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
import yaml

from remit import config
from remit.errors import RemitError
from remit.recordings import matfile, table
from remit.training import checkpoint, state
from tests.conftest import BIN, ROOT, run, snakemake
from tests.unit.recordings.matlab_made import save

PACKAGE = ROOT / "workflow/remit"


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "was_run"


def test_the_bomb_goes_off_where_pickles_are_run(marker):
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


# Checkpoints and states -------------------------------------------------------------------


def bare_pickle(content, file):
    file.write_bytes(pickle.dumps(content))


def zipped(content, file):
    torch.save(content, file)


def legacy(content, file):
    torch.save(content, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [bare_pickle, zipped, legacy])
@pytest.mark.parametrize("where", ["whole", "value", "tensors"])
def test_a_pickle_in_a_checkpoint_is_refused_and_not_run(tmp_path, marker, write, where):
    bomb = Bomb(marker)
    content = {"format": checkpoint.FORMAT, "kind": "pretrained", "state_dict": {}}
    if where == "value":
        content["settings"] = {"x": bomb}
    elif where == "tensors":
        content["state_dict"] = {"w": bomb, "v": torch.ones(2)}
    file = tmp_path / "evil.pt"
    write(bomb if where == "whole" else content, file)
    for kind in ("pretrained", "finetuned"):
        with pytest.raises(RemitError, match="tensors and plain values only") as caught:
            checkpoint.load(file, kind)
        assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_a_program_in_a_checkpoint_is_refused(tmp_path):
    file = tmp_path / "evil.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    with pytest.raises(RemitError, match="cannot be read as a checkpoint"):
        checkpoint.load(file, "pretrained")


def test_a_pickle_in_a_state_is_left_aside_and_not_run(tmp_path, marker):
    lines = []
    made = state.TrainingState(
        tmp_path / "x.pt", {}, {"m": torch.nn.Linear(2, 2)}, 60, lines.append
    )
    made.save("epoch 1", {})
    content = torch.load(made.file, weights_only=True)
    torch.save({**content, "progress": Bomb(marker)}, made.file)
    assert made.load() is None and "cannot be read" in lines[-1]
    assert not marker.exists()


def calls(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func), {word.arg: word.value for word in node.keywords}


# What runs what it reads. MLflow's models are only ever written: nobody loads one that others made.
RUNS = re.compile(
    r"(^|\.)(eval|exec|system|popen|read_pickle|unpickle|load_model|full_load|unsafe_load|load_all)$"
    r"|^(pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)\."
    r"|^yaml\.load$|^torch\.jit\.load$|^np\.memmap$"
)


def test_no_module_calls_what_runs_what_it_reads():
    seen = 0
    for file in PACKAGE.rglob("*.py"):
        for node, name, words in calls(file):
            place = f"{file.name}, line {node.lineno}: {ast.unparse(node)}"
            if name.endswith("model.eval") or name in ("encoder.eval", "head.eval"):
                continue  # of a torch module
            assert not RUNS.search(name) or (name.endswith(".eval") and not node.args), place
            if name == "torch.load":
                seen += 1
                assert ast.unparse(words["weights_only"]) == "True", place
            if name in ("np.load", "numpy.load"):
                assert ast.unparse(words.get("allow_pickle", ast.Constant(False))) == "False", place
            if name.startswith("subprocess."):
                assert "shell" not in words, place
    assert seen >= 2


# Recordings -------------------------------------------------------------------------------


def test_values_of_a_mat_file_that_lie_in_another_file_are_not_read(tmp_path):
    """HDF5 has four ways of naming another file; a recording must not be somebody's secret."""
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(64, dtype="<f8").tobytes())
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as opened:
        opened["x"] = np.arange(8.0)
    file = save(tmp_path / "a.mat", "7.3", {"mine": np.ones((2, 3))})
    with h5py.File(file, "r+") as opened:
        opened.create_dataset("raw", (64,), "<f8", external=[(str(secret), 0, 512)])
        layout = h5py.VirtualLayout((8,), "<f8")
        layout[:] = h5py.VirtualSource(str(other), "x", (8,))
        opened.create_virtual_dataset("virtual", layout)
        opened["link"] = h5py.ExternalLink(str(other), "x")
        opened["soft"] = h5py.SoftLink("/mine")
        for name in ("raw", "virtual"):
            opened[name].attrs["MATLAB_class"] = np.bytes_(b"double")
    found = matfile.load(file)
    np.testing.assert_array_equal(matfile.numbers(found["mine"]), np.ones((2, 3)))
    for name in ("raw", "virtual", "link", "soft"):
        assert found.get(name, matfile.Other("link")) == matfile.Other("link"), name
    assert found["raw"].kind == found["virtual"].kind == "link"


def test_objects_and_function_handles_of_a_mat_file_are_only_named(tmp_path):
    """Class 16 is a function handle, 17 an object: MATLAB would make them, nothing here does."""
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, {"x": np.ones((1, 4))})
    content = bytearray(file.read_bytes())
    flags = content.index(b"\x06\x00\x00\x00\x08\x00\x00\x00", 128) + 8
    for kind in (16, 17):
        content[flags] = kind
        file.write_bytes(content)
        try:
            found = matfile.load(file)["x"]
        except RemitError as error:
            assert "is damaged" in str(error) and "\n" not in str(error)
        else:
            assert isinstance(found, matfile.Other)
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as opened:
        opened["handle"] = np.array([1, 2, 3], dtype="u1")
        opened["handle"].attrs["MATLAB_class"] = np.bytes_(b"function_handle")
        opened["handle"].attrs["MATLAB_object_decode"] = np.int32(1)
    with (tmp_path / "b.mat").open("r+b") as opened:
        opened.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    assert matfile.load(tmp_path / "b.mat")["handle"] == matfile.Other("function_handle")


@pytest.mark.parametrize("name", ["../../out.csv", "/tmp/out.csv", "..\\out.csv", "a/../../o.csv"])
def test_the_name_of_a_zip_entry_is_never_a_path(tmp_path, name):
    body = "timestamps,TP9,AF7\n" + "".join(f"{n / 256},{n},1\n" for n in range(300))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, body)
    folder = tmp_path / "in/side"
    folder.mkdir(parents=True)
    (folder / "a.zip").write_bytes(packed.getvalue())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert table.load(folder / "a.zip").content[:10] == b"timestamps"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


# Settings ---------------------------------------------------------------------------------


def yaml_bombs(marker):
    touch = shlex.quote(str(marker))
    return {
        "apply": f"cohort: !!python/object/apply:os.system ['touch {touch}']\n",
        "new": f"cohort: !!python/object/new:os.system ['touch {touch}']\n",
        "name": "cohort: !!python/name:os.system\n",
    }


@pytest.mark.parametrize("which", ["apply", "new", "name"])
def test_a_tag_of_python_in_yaml_is_refused_and_not_run(tmp_path, marker, which):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml_bombs(marker)[which])
    with pytest.raises(RemitError, match="is not YAML"):
        config.load(file)
    assert not marker.exists()


def test_snakemake_refuses_it_too(tmp_path, marker):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml_bombs(marker)["apply"])
    done = snakemake("--dry-run", cwd=tmp_path, config=file)
    assert done.returncode != 0 and "is not valid JSON or YAML" in done.stdout, done.stdout
    assert not marker.exists()


# Names and the shell, and the network -----------------------------------------------------

HOSTILE = "a $(touch PWNED) 'q' \"d\" `touch PWNED`;touch PWNED&ü*?[x] -rf"
# Loaded by every Python of a run: whoever looks a name up or connects elsewhere is written down.
TRAP = """
import os, socket
def _told(what, address):
    host = address[0] if isinstance(address, tuple) else address
    if host in ("127.0.0.1", "::1", "localhost", None, "") or what == "unix":
        return
    with open(os.environ["REMIT_TRAP"], "a") as out:
        out.write(f"{what} {address}\\n")
    raise OSError("no network in this test")
class Socket(socket.socket):
    def connect(self, address):
        _told("unix" if self.family == socket.AF_UNIX else "connect", address)
        return super().connect(address)
    def connect_ex(self, address):
        _told("unix" if self.family == socket.AF_UNIX else "connect", address)
        return super().connect_ex(address)
    def bind(self, address):
        _told("unix" if self.family == socket.AF_UNIX else "bind", address)
        return super().bind(address)
socket.socket = Socket
_looked_up = socket.getaddrinfo
def getaddrinfo(host, *more, **named):
    _told("look up", (host,))
    return _looked_up(host, *more, **named)
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture
def trap(tmp_path):
    """Environment in which nothing but the loopback can be reached, and the list of who tried."""
    folder = tmp_path / "trap"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TRAP)
    tried = tmp_path / "tried"
    tried.touch()
    kept = {"PYTHONPATH": os.pathsep.join([str(folder), *_paths()]), "REMIT_TRAP": str(tried)}
    # What tells MLflow that it is tested, or run by a machine, would keep it quiet by itself.
    return kept | {"CI": "", "PYTEST_CURRENT_TEST": "", "PYTEST_VERSION": ""}, tried


def _paths():
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def test_the_trap_closes(trap, tmp_path):
    env, tried = trap
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    assert run(sys.executable, "-c", code, cwd=tmp_path, env=env).returncode != 0
    assert "192.0.2.1" in tried.read_text()


@pytest.mark.e2e
def test_hostile_names_are_only_names_and_nothing_asks_the_network(tmp_path, trap):
    """Raw recordings to the primary dataset, with MLflow, in folders whose names are commands."""
    env, tried = trap
    work = tmp_path / HOSTILE
    work.mkdir()
    made = run(
        *(BIN / "remit", "simulate", f"--output={HOSTILE}", "--participants", 1),
        *("--minutes", 0.2),
        cwd=work,
        env=env,
    )
    assert made.returncode == 0, made.stdout
    name = "-rf $(touch PWNED) o'; touch PWNED; '.edf"
    (old,) = (work / HOSTILE).glob("*.edf")
    old.rename(old.with_name(name))
    (work / HOSTILE / "-sheet.tsv").write_text(
        f"participant\trecording\tpath\tremission\np\tp\t{name}\t1\n"
    )
    settings = {
        "cohort": "mine",
        "cohorts": {"mine": {"sheet": f"{HOSTILE}/-sheet.tsv"}},
        "execution": {"device": "cpu", "training_threads": 1},
    }
    (work / "mine.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))
    target = "results/primary/8s_af7-af8-tp9-tp10_primary_dataset.parquet"
    done = run(
        *(BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", 2, target),
        *("--configfile", "mine.yaml"),
        cwd=work,
        env=env,
    )
    assert done.returncode == 0, done.stdout
    assert (work / target).exists() and (work / "results/mlflow.db").exists()
    assert not list(tmp_path.rglob("PWNED"))
    assert tried.read_text() == ""


@pytest.mark.parametrize(
    "name", ["a b", "a'b", "$(touch x)", "-rf", "a\nb", "ü", "a/b", "..", "`x`", "{model}", "a\0b"]
)
def test_an_id_that_a_shell_could_read_is_refused(tmp_path, name):
    cohort = {"participant": name, "recording": "r", "path": "a.edf", "remission": 1}
    file = tmp_path / "sheet.tsv"
    file.write_text("\t".join(cohort) + "\n" + "\t".join(map(str, cohort.values())) + "\n")
    settings = {"cohort": "mine", "cohorts": {"mine": {"sheet": str(file)}}}
    (tmp_path / "mine.json").write_text(json.dumps(settings))
    from remit.planning import Plan

    with pytest.raises(RemitError) as caught:
        Plan(settings).rows("mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["sheet", "scan"])
@pytest.mark.parametrize("name", ["eeg.edf", "channels.tsv"])
def test_a_link_that_leads_out_of_a_cohort_is_refused_when_planning(tmp_path, how, name):
    """The recording itself, or a sidecar that it is read with."""
    from remit.planning import Plan

    folder, other = tmp_path / "in/sub-1/eeg", tmp_path / "other"
    for each in (folder, other):
        each.mkdir(parents=True)
        (each / "sub-1_eeg.edf").write_bytes(b"0       ")
        (each / "sub-1_channels.tsv").write_text("name\n")
    (folder / f"sub-1_{name}").unlink()
    (folder / f"sub-1_{name}").symlink_to(other / f"sub-1_{name}")
    (tmp_path / "in/sheet.tsv").write_text(
        "participant\trecording\tpath\n1\tr\tsub-1/eeg/sub-1_eeg.edf\n"
    )
    given = {"sheet": str(tmp_path / "in/sheet.tsv")}
    cohort = given if how == "sheet" else {"scan": {"root": str(tmp_path / "in")}}

    def read_from(**more):
        plan = Plan({"cohort": "mine", "cohorts": {"mine": cohort | more}})
        (row,) = plan.rows("mine")
        return [plan.source("mine", row), *plan.beside("mine", row)]

    with pytest.raises(RemitError, match="a symbolic link leads to") as caught:
        read_from()
    assert str(other / f"sub-1_{name}") in str(caught.value) and "\n" not in str(caught.value)
    assert len(read_from(follow_links_to=[str(other)])) == 2


def test_every_word_of_a_shell_line_is_quoted():
    """`{input:q}`, and never `{input}`: the paths are other people's."""
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for line in re.findall(r'shell:\s+"(.*)"', file.read_text()):
            unquoted = [word for word in re.findall(r"\{[^}]*\}", line) if not word.endswith(":q}")]
            assert not unquoted, f"{file.name}: {unquoted}"


def test_the_page_that_the_manual_has_mlflow_show_is_for_this_machine_alone():
    """MLflow binds to the loopback unless it is told otherwise, and no command of ours does so."""
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    commands = [
        line
        for page in pages
        for line in re.findall(r"mlflow (?:ui|server)[^`\n]*", page.read_text(encoding="utf-8"))
    ]
    assert commands
    for line in commands:
        assert "--host" not in line or "127.0.0.1" in line, line
    from mlflow.utils import cli_args

    (host,) = cli_args.HOST(lambda: None).__click_params__
    assert host.default == "127.0.0.1"
