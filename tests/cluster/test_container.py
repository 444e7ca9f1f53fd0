"""The container file, as far as it can be checked without an engine."""

import json
import re
import shlex
import shutil
import tomllib

import pytest

from tests.conftest import BIN, ROOT, run

pytestmark = pytest.mark.dag

HOME = "/opt/remit"


@pytest.fixture(scope="module")
def steps():
    """Instruction and argument, continued lines joined."""
    text = (ROOT / "envs/Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_versions_are_those_of_the_constraints(steps):
    pins = (ROOT / "envs/constraints.txt").read_text()
    (base,) = [what for step, what in steps if step == "FROM"]
    python = re.search(r"on Python (\d+\.\d+)", pins)[1]
    assert base.split(":")[-1].startswith(f"{python}-slim")
    installs = [what for step, what in steps if step == "RUN" and "pip install" in what]
    assert installs and all("--constraint envs/constraints.txt" in what for what in installs)
    named = [pin for what in installs for pin in re.findall(r"\S+==\S+", what)]
    assert named and all(f"\n{pin}\n" in pins for pin in named)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert "'.[slurm]'" in installs[-1] and "slurm" in extras


def test_it_is_not_run_as_root(steps):
    assert [what for step, what in steps if step == "USER"] == ["1000"]
    after = [step for step, _ in steps][[step for step, _ in steps].index("USER") :]
    assert "RUN" not in after and "COPY" not in after


def test_what_it_copies_suffices_to_plan_the_main_job(steps, tmp_path):
    """The COPY steps done by hand, and Snakemake on what they made, as the entry point calls it."""
    root = tmp_path / "image"
    here = ""
    for step, what in steps:
        if step == "WORKDIR":
            here = what
        elif step == "COPY":
            *sources, target = shlex.split(what)
            place = root / here.lstrip("/") / target
            for source in sources:
                tracked = run("git", "ls-files", "--", source, cwd=ROOT).stdout.split()
                assert tracked, f"COPY {source}: not a file of the repository"
                for file in tracked:
                    inside = place / file.removeprefix(source).lstrip("/")
                    copy = inside if file != source else place / file.split("/")[-1]
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / file, copy)
    (entry,) = [json.loads(what) for step, what in steps if step == "ENTRYPOINT"]
    program, *options = [word.replace(HOME, f"{root}{HOME}") for word in entry]
    work = tmp_path / "work"
    work.mkdir()
    done = run(
        *(BIN / program, *options, "--dry-run"),
        cwd=work,
        env={"PYTHONPATH": f"{root}{HOME}/workflow", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0 and re.search(r"^pretrain +1$", done.stdout, re.M), done.stdout
    assert f"{root}{HOME}/profiles/default" in done.stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in (project["readme"], *project["license-files"]):
        assert (root / HOME.lstrip("/") / name).exists()
