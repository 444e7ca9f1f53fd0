"""The documents do what they say: commands run, quotes are what is printed, the site is whole."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import yaml

import remit
from remit import cli, naming
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.evaluation import window_tables
from remit.nn.masking import Corruption
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import ReaderOptions, read_recording
from tests.conftest import ROOT, run
from tests.e2e.recordings import bids_dataset, muse_folder, study_mat

pytestmark = pytest.mark.e2e

PAGES = {
    page.name: page.read_text(encoding="utf-8")
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
}
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1``` *$", re.MULTILINE | re.DOTALL)
STARTERS = r"(?:\w+=\S+ +)*(?:\.venv/bin/\S+|remit|snakemake|make|pip|uv|python3?|sbatch|export)\s"

# Commands that no test here runs, each with the place where it does run, or why it cannot.
ELSEWHERE = {
    r"(?:\S+ -m )?(?:pip|venv) |(?:\.venv/bin/)?python3? -m (?:pip|venv) |uv ": "installs packages: "
    "'make env' of .ci/run does on a bare machine",
    r"(?:MAMBA_SKIP_CUDA_BUILD|MAX_JOBS|export CUDA_HOME)": "needs nvcc or a GPU; 'make test-slow' does "
    "the first",
    r"\S*remit verify ": "tests/unit/evaluation/test_diagnostics.py",
    r"\S*remit predict ": "tests/unit/evaluation/test_predict.py",
    r"\S*remit doctor": "tests/unit/test_doctor.py; it measures for seconds",
    r"snakemake TARGET --executor kubernetes": "has never run; docs/clusters.md says so",
    r".*…": "a pattern with a hole in it, and no command",
}
# What is made here and not only planned; the others are made, smaller, by test_chain and test_evaluation.
MADE = (
    r"results/windows/",
    r"results/finetuned/\S+ --configfile muse.yaml",
    r"--unlock",
)
SMALL = {
    "pretraining": {"epochs": 1, "least_steps": 0},
    "finetuning": {"epochs": 2},
    "execution": {"device": "cpu", "training_threads": 1, "mlflow": False},
}
PRIMARY = "results/primary/8s_af7-af8-tp9-tp10_primary_dataset.parquet"


class Block(NamedTuple):
    """A fenced block, and the text block that stands next after it."""

    language: str
    text: str
    prints: str | None


def blocks(page):
    found = list(FENCE.finditer(PAGES[page]))
    for here, after in pairwise([*found, None]):
        text = re.sub(f"^{here[1]}", "", here[3], flags=re.MULTILINE)
        prints = None
        if after and after[2] == "text":
            between = PAGES[page][here.end() : after.start()]
            prints = None if re.search(r"^#|^ *\d+\. ", between, re.MULTILINE) else after[3]
        yield Block(here[2], text, prints)


def commands_of(text):
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def commands(page):
    """Every command of a page, and what it is said to print after the last one of its block."""
    for block in blocks(page):
        if block.language == "sh":
            *others, last = commands_of(block.text)
            yield from ((command, None) for command in others)
            yield last, block.prints
    unfenced = FENCE.sub("", PAGES[page])
    for indented in re.findall(rf"(?:\n {{4}}{STARTERS}.*(?:\n {{4,}}\S.*)*)", unfenced):
        yield from ((command, None) for command in commands_of(indented))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout as the documents have it, with the recordings that they speak of."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Snakefile", "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("workflow", "config", "profiles", "envs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".venv").symlink_to(sys.prefix)
    muse_folder(folder / "muse")
    bids_dataset(folder / "bids")
    study_mat(folder / "study.mat")
    return folder


def test_every_block_names_its_language():
    nameless = {page for page in PAGES for block in blocks(page) if not block.language}
    assert not nameless
    assert sum(1 for page in PAGES for _ in commands(page)) > 30


def played(command, folder):
    """Run a command of the documents; what takes hours is planned. Returns its output, None if planned."""
    command = command.replace("/data/bids", "bids")
    planned = False
    if command.startswith("make "):
        command, planned = command.replace("make ", "make -n "), True
    elif (
        re.match(r"(\.venv/bin/)?snakemake ", command)
        and not re.search(r" -n( |$)|--dry-run", command)
        and not any(re.search(made, command) for made in MADE)
    ):
        command, planned = command.replace("snakemake", "snakemake -n", 1), True
        # Of what is only planned there is no report; test_evaluation makes one.
        command = re.sub(r" --report(-after-run| \S+)", "", command)
    path = f"export PATH={shlex.quote(str(folder))}/.venv/bin:$PATH\n"
    done = run("bash", "-euc", path + command, cwd=folder)
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    assert "Traceback" not in done.stdout
    return None if planned else done.stdout


def prints(quoted, output):
    """Whether each line that is quoted, … standing for anything, was printed; in this order."""
    rest = output
    for line in quoted.strip("\n").splitlines():
        fixed = ".*".join(map(re.escape, line.strip().split("…")))
        found = re.search(fixed, rest)
        assert found, f"{line.strip()}\nwas not printed:\n{output}"
        rest = rest[found.end() :]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "your-data.md"])
def test_every_command_runs(page, checkout):
    for command, quoted in commands(page):
        if any(re.match(known, command) for known in ELSEWHERE):
            continue
        output = played(command, checkout)
        if quoted is not None:
            prints(quoted, output)


@pytest.fixture(scope="module")
def walked(checkout):
    """All three ways of your-data.md; the Muse one to its end, trained for an epoch."""
    for command, quoted in commands("your-data.md"):
        output = played(command, checkout)
        if quoted is not None:
            assert output is not None, f"{command} is only planned, and {quoted} cannot be seen"
            prints(quoted, output)
        if "--config muse.yaml" in command:
            file = checkout / "muse.yaml"
            kept, found, _ = file.read_text().partition("pretraining:\n")
            assert found, kept
            file.write_text(kept + yaml.safe_dump(SMALL))
    own = next((checkout / "results/primary").glob("*.parquet"))
    if not (checkout / PRIMARY).exists():  # the demo's name, in another order of channels
        (checkout / PRIMARY).symlink_to(own)
    return checkout


def test_the_ways_to_your_own_data_are_walked(walked):
    assert (walked / "results/pretrained/mamba2_eeg_d256_l2_m50_mae.pt").stat().st_size > 0
    for recording in ("p01_rest", "sub-01_task-rest", "100"):
        assert (walked / f"results/windows/mine/{recording}.parquet").exists()


def test_the_notebook_runs_and_draws(walked):
    notebook = json.loads((ROOT / "docs/look.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    code = "import matplotlib\nmatplotlib.use('Agg')\n"
    code += "\n".join("".join(cell["source"]) for cell in cells)
    drawn = "len(axes), [len(axis.lines) for axis in axes[:, 0]], look.explained"
    # The sequence drawn anew from the file: scaled by the recording's quartiles, the same samples.
    own = """
windows = pd.read_parquet(PRIMARY)
windows = windows[windows["Participant"] == look.participant].sort_values("window_start")
signal = np.concatenate(windows[look.channels[0]].to_list())
low, middle, high = np.percentile(signal, [25, 50, 75])
scaled = (signal - middle) / ((high - low) / 1.3489795)
print("off by", np.abs(scaled[: len(look.true_TC)] - look.true_TC[:, 0]).max())
shown = ~np.isnan(look.predicted_TC)
print("hidden", bool((shown == look.masked_TC).all()), look.masked_TC.mean())
"""
    done = run(sys.executable, "-c", f"{code}\nprint('drawn', {drawn})\n{own}", cwd=walked)
    assert done.returncode == 0, done.stdout
    assert "drawn 4 [2, 2, 2, 2]" in done.stdout
    off, hidden = re.search(r"off by (\S+)\nhidden True (\S+)", done.stdout).groups()
    assert float(off) < 1e-2
    assert 0.4 < float(hidden) < 0.6  # 50 % is masked


def test_four_lines_load_a_checkpoint(walked):
    [code] = [block.text for block in blocks("start.md") if block.language == "python"]
    done = run(sys.executable, "-c", code, cwd=walked)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\(4096, 4\) \(4096, 4\) -?\d\.\d+", done.stdout)


def test_what_is_loaded_predicts_what_is_hidden_and_refuses_what_is_not_there(walked):
    model = remit.load(
        walked / "results/pretrained/mamba2_eeg_d256_l2_m50_mae.pt", walked / PRIMARY
    )
    first, again, other = (model.look("p02", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.predicted_TC, again.predicted_TC)
    assert (first.masked_TC != other.masked_TC).any()
    error_M = (first.true_TC - first.predicted_TC)[first.masked_TC]
    naive = 1 - (error_M**2).mean() / (first.true_TC[first.masked_TC] ** 2).mean()
    assert first.explained == pytest.approx(naive, abs=1e-6)
    assert first.time_T[0] == 0 and model.look("p02", sequence=1).time_T[0] == 16
    with pytest.raises(RemitError, match="expected a number from 0 to 1, found 2"):
        model.look("p02", sequence=2)
    with pytest.raises(RemitError, match="has no participant nobody"):
        model.look("nobody")
    with pytest.raises(RemitError, match=r"gone\.pt: not found; expected a pretrained checkpoint"):
        remit.load(walked / "gone.pt", walked / PRIMARY)


def test_the_figures_of_reading_are_what_the_code_gives(capsys):
    shown = [block for block in blocks("reading.md") if block.language == "python"]
    assert len(shown) == 3
    for block in shown:
        exec(block.text, {})
        assert capsys.readouterr().out == block.prints


# Commands in a line of text ---------------------------------------------------------------


def spans(page):
    plain = FENCE.sub("", PAGES[page])
    return re.findall(r"(?<!`)`((?:remit|snakemake|make|python|pytest) [^`\n]*)`", plain)


def options_of(words):
    """The options of a subcommand of remit; KeyError if there is none."""
    parser = cli._parser()
    while True:
        groups = [a for a in parser._actions if hasattr(a, "choices") and a.nargs == "A..."]
        if not groups:
            return {text for action in parser._actions for text in action.option_strings}
        parser = groups[0].choices[words.pop(0)]


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_are_there(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets |= {"test-unit", "test-dag", "test-e2e", "test-faults"}
    rules = "".join(file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk"))
    rules += (ROOT / "Snakefile").read_text()
    for span in spans(page):
        program, *words = span.split()
        if program == "make":
            assert words[0] in targets, span
        elif program in ("python", "pytest") and words[0].endswith(".py"):
            assert (ROOT / words[0]).exists(), span
        elif program == "remit" and not words[0].startswith("-"):
            given = {word.split("=")[0] for word in words if word.startswith("--")}
            assert given <= options_of(words), span
        elif program == "snakemake" and not words[0].startswith("-") and words[0][0] not in "…<":
            if "/" in words[0]:
                assert naming.read_target(words[0]), span
            else:
                assert re.search(rf"^rule {words[0]}:", rules, re.MULTILINE), span


# Messages ---------------------------------------------------------------------------------


def templates():
    """Every text of the code, with a zero byte where a value is put in."""
    snakemake = importlib.util.find_spec("snakemake").submodule_search_locations[0]
    files = [*(ROOT / "workflow/remit").rglob("*.py"), f"{snakemake}/exceptions.py"]
    for file in files:
        with open(file, encoding="utf-8") as source:  # noqa: PTH123 - paths and texts alike
            tree = ast.parse(source.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    part.value if isinstance(part, ast.Constant) else "\0" for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_quoted_messages_are_the_codes_own():
    known = "\n\n".join(templates())
    quoted = [block.text for block in blocks("troubleshooting.md") if block.language == "text"]
    assert len(quoted) >= 20
    table = PAGES["reading.md"].split("## The first lines")[1].split("\n## ")[0]
    quoted += re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    for message in quoted:
        parts = [
            re.escape(part)
            for part in message.strip().strip("…").removeprefix("remit: ").split("…")
        ]
        assert re.search(r"[^\n]*?".join(parts), known), message


# What is added -----------------------------------------------------------------------------


def example(title):
    [found] = re.findall(rf'```python title="{title}"\n(.*?)```', PAGES["extending.md"], re.DOTALL)
    return found


def test_the_reader_of_the_example_reads(tmp_path, monkeypatch):
    package = importlib.import_module("remit.recordings.readers")
    (tmp_path / "npy.py").write_text(example("npy.py"))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    signal_CS = np.cumsum(np.random.default_rng(0).normal(0, 4, (2, 2560)), axis=1)
    np.save(tmp_path / "a.npy", signal_CS)
    row = SheetRow("a", "a", str(tmp_path / "a.npy"), None, None, {})
    found = read_recording(row, ReaderOptions(256.0, ("TP9", "TP10")))
    np.testing.assert_array_equal(found.signal_CS, signal_CS.astype(np.float32))
    assert found.channels == ("TP9", "TP10") and found.seconds == 10
    with pytest.raises(RemitError, match=r"expected \[3, samples\]"):
        read_recording(row, ReaderOptions(256.0, ("TP9", "TP10", "AF7")))
    monkeypatch.undo()
    del sys.modules["remit.recordings.readers.npy"]


def test_the_masking_style_of_the_example_is_a_name(tmp_path):
    begins = "MASKING_STYLES: dict[str, tuple[float, float, float]] = {\n"
    source = (ROOT / "workflow/remit/naming.py").read_text()
    assert begins in source
    (tmp_path / "other_naming.py").write_text(
        source.replace(begins, begins + example("a row of MASKING_STYLES"))
    )
    code = (
        "import json, other_naming as n; name = n.ModelName.parse('mamba2_eeg_d256_l2_m20_half');"
        "print(json.dumps([str(name), n.MASKING_STYLES[name.masking_style]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    name, parts = json.loads(done.stdout)
    assert name == "mamba2_eeg_d256_l2_m20_half"
    Corruption(*parts)


def test_the_baseline_of_the_example_makes_a_table(walked):
    known = vars(window_tables).copy()
    exec(example("window_tables.py"), known)
    dataset = open_dataset(walked / PRIMARY)
    cohort = SimpleNamespace(
        path="folds.json",
        dataset="8s_tp9-af7-af8-tp10",
        content_sha256=dataset.metadata["content_sha256"],
        names=tuple(dataset.participants[1:]),
    )
    table = known["loudness"](dataset, cohort)
    assert table.rows_NX.shape == (28, 4)
    first_W = (dataset.frame()["Participant"] == "p02").to_numpy()
    expected = np.log(dataset.signal_WCS()[first_W].std(axis=2))
    np.testing.assert_allclose(table.rows_NX[table.participant_N == 0], expected, rtol=1e-5)


# The site -----------------------------------------------------------------------------------


class Assets(HTMLParser):
    """What a browser fetches by itself for a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(values["href"])
        elif tag != "link" and values.get("src"):
            self.found.append(values["src"])


def test_the_site_builds_strictly_and_fetches_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    done = run(
        *(sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"),
        *("--config-file", ROOT / "mkdocs.yml", "--site-dir", tmp_path / "site"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        assets = Assets()
        assets.feed(page.read_text(encoding="utf-8"))
        assert len(assets.found) > 3
        assert not [found for found in assets.found if re.match(r"(https?:)?//", found)], page
        assert 'class="mermaid"' not in page.read_text(encoding="utf-8")  # its script is elsewhere
        local = [found.split("?")[0] for found in assets.found if not found.startswith("data:")]
        if page.name != "404.html":
            assert all((page.parent / found).exists() for found in local), page
