"""What leaves the checkout: a wheel that works by itself, and a workflow inside another one."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.conftest import ROOT


def test_every_pinned_version_runs_on_the_oldest_python_that_is_promised():
    """One that wants a later 3.11.x than Debian 12 has made the installation impossible there."""
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = f"{promised.removeprefix('>=')}.0"
    lines = (ROOT / "envs/constraints.txt").read_text().splitlines()
    pinned = {
        canonicalize_name(Requirement(line).name)
        for line in (line.split("#")[0].strip() for line in lines)
        if line
    }
    wants = {
        canonicalize_name(found.name): found.metadata.get("Requires-Python") or ""
        for found in distributions()
    }
    assert len(pinned & set(wants)) > 100
    late = {
        name: wants[name]
        for name in pinned & set(wants)
        if not SpecifierSet(wants[name]).contains(oldest)
    }
    assert not late, late


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The folder that the wheel unpacks to; built without the network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    kept_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "workflow/remit", source / "workflow/remit", ignore=kept_out)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "made"],
        cwd=source,
        check=True,
        capture_output=True,
    )
    [made] = (source / "made").glob("*.whl")
    place = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(place)
    return source, place


def remit(place, folder, *arguments):
    """The command as the wheel has it, outside the checkout."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "remit.cli", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    )


def test_a_wheel_holds_every_file_of_the_package(wheel):
    source, place = wheel
    of_source = {p.relative_to(source / "workflow") for p in source.glob("workflow/remit/**/*.*")}
    of_wheel = {p.relative_to(place) for p in place.glob("remit/**/*.*")}
    assert len(of_source) > 100
    assert of_source == of_wheel


def test_a_wheel_works_outside_the_checkout(wheel, tmp_path):
    _, place = wheel
    where = "import remit.planning; print(remit.planning.__file__)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", where],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    )
    assert found.stdout.startswith(str(place))
    scanned = remit(place, tmp_path, "cohort", "scan", tmp_path, "--output", "cohort.tsv")
    assert scanned.returncode == 1
    assert scanned.stderr.startswith("remit: ")
    assert len(scanned.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.dag
def test_another_workflow_uses_this_one_as_a_module(tmp_path):
    """With settings of its own, beside rules of its own, which are given what is made here."""
    (tmp_path / "Snakefile").write_text(
        f'''
configfile: "study.yaml"

module remit:
    snakefile: "{ROOT / "Snakefile"}"
    config: config["remit"]

use rule * from remit as remit_*

rule letter:
    input: rules.remit_all.input
    output: "letter.txt"
    shell: "wc -c {{input:q}} > {{output:q}}"
'''
    )
    (tmp_path / "study.yaml").write_text(
        "remit:\n  cohorts: {simulated: {simulate: {participants: 30}}}\n  model: {d_model: 64}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "letter.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = dict(
        line.split()
        for line in done.stdout.splitlines()
        if line.startswith("remit_") and len(line.split()) == 2
    )
    assert jobs["remit_windows"] == "30"
    assert jobs["remit_pretrain"] == jobs["remit_finetune"] == "1"
    assert "mamba2_eeg_d64_l2_m50_mae_finetuned_best.pt" in done.stdout
