"""The house: an import never runs upwards, and what Snakemake parses stays light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "workflow" / "remit"
FLOORS = {
    "errors": 0,
    "naming": 1,
    "files": 1,
    "progress": 1,
    "provenance": 2,
    "config": 2,
    "configdoc": 3,
    "recordings": 3,
    "preprocessing": 4,
    "dataset": 5,
    "tracking": 5,
    "evaluation": 6,
    "training": 6,
    "report": 7,
    "planning": 8,
    "doctor": 8,
    "cli": 9,
    "nn": 0,
}
# Within planning: each part stands on those below it.
PLANNING = ["versions", "recordings", "results", "settings", "plan", "run", "__init__"]
HEAVY = {"torch", "mne", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "mlflow", "numpy"}


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "remit" and len(parts) > 1 else None


def imports_of(file: Path) -> set[str]:
    package = ["remit", *file.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def test_no_import_runs_upwards():
    for file in PACKAGE.rglob("*.py"):
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in {"__init__", "__main__"}:
            continue
        for module in imports_of(file):
            other = room(module)
            if other is None or other not in FLOORS or other == own:
                continue
            assert own != "nn", f"{file.name} of nn imports {module}"
            assert FLOORS[other] <= FLOORS[own], f"{own} ({file.name}) imports {module}"


def test_the_parts_of_planning_stand_on_those_below():
    files = {file.stem: file for file in (PACKAGE / "planning").glob("*.py")}
    assert files.keys() == set(PLANNING)
    for name, file in files.items():
        below = PLANNING[: PLANNING.index(name)]
        parts = {m.split(".")[2] for m in imports_of(file) if m.startswith("remit.planning.")}
        assert parts <= set(below), f"{name} imports {parts - set(below)}"


def test_every_room_has_a_floor():
    rooms = {
        p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()
    }
    assert rooms - {"__init__", "__pycache__"} == set(FLOORS)


def test_only_tracking_imports_mlflow():
    users = {
        f.parent.name
        for f in PACKAGE.rglob("*.py")
        if any(m.split(".")[0] == "mlflow" for m in imports_of(f))
    }
    assert users == {"tracking"}


def test_what_snakemake_parses_imports_nothing_heavy():
    code = "import sys, json, remit.planning, remit.naming; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(name.split(".")[0] for name in json.loads(done.stdout))


def test_the_command_line_imports_a_stage_only_when_it_is_called():
    code = (
        "import sys, json, remit.cli\n"
        "try: remit.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert HEAVY.isdisjoint(name.split(".")[0] for name in loaded)
