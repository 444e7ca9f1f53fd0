"""A backbone's diagnostics, read from their file and drawn; computes no figure of its own."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from remit import naming
from remit.errors import RemitError
from remit.evaluation.checks import ALL, checks_of
from remit.evaluation.resampling import FEWEST_TO_TRUST, above, below
from remit.report.drawing import BLUE, GREEN, GREY, ORANGE, VERMILION, canvas, save

RESULT_VERSION = 2  # raise when a change here alters the picture of the checks

# A verdict is a word and a shape; the colour only helps.
VERDICTS = {"pass": (GREEN, "o"), "warn": (ORANGE, "^"), "fail": (VERMILION, "X")}
# Columns of the table of checks: letters to a line, and where it begins in the width of the picture.
_KEYS, _WIDTHS, _LEFT = ("name", "found", "expected"), (36, 66, 62), (0.08, 0.29, 0.655)
NARROWEST = 0.02  # skill that a panel shows to either side at least


def read_diagnostics(file: Path) -> dict[str, Any]:
    """A backbone's diagnostics; raises :class:`RemitError` if the file is something else."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if found["kind"] != "diagnostics":
            raise KeyError("kind")
        found["model"], found["checkpoint_sha256"], found["masked"], found["n"]
        for check in found["checks"]:
            [check[key] for key in ("name", "status", "found", "expected", "why")]
            if check["status"] not in ("pass", "warn", "fail"):
                raise ValueError(f"a check says {check['status']!r}")
        if not found["checks"]:
            raise ValueError("it holds no check")
        found["backbone_sha256"], found["content_sha256"], found["split_sha256"]
        texts = found["dataset"], found["settings"]["result_version"]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"dataset and version are {texts}")
        by_figures = {check["name"]: check for check in checks_of(found)}
    except OSError as error:
        raise RemitError(
            f"{file}: cannot be read ({error.strerror}); expected the diagnostics of a backbone; ask "
            "snakemake for it."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RemitError(
            f"{file}: holds no diagnostics of a backbone ({type(error).__name__}: {error}); expected the "
            ".json that 'remit diagnose' wrote; ask snakemake for it."
        ) from None
    written = {check["name"]: check for check in found["checks"]}
    for name in [*by_figures, *written]:
        if written.get(name) != by_figures.get(name):
            told, true = (
                each.get(name, {}).get("status", "not there") for each in (written, by_figures)
            )
            raise RemitError(
                f"{file}: its check '{name}' is not what its figures give ({told}; by the figures {true}); "
                "expected the file as 'remit diagnose' of this version wrote it; ask snakemake for it again."
            )
    return found


def diagnostics_of(file: Path) -> Path:
    """Where the workflow keeps the diagnostics of a pretrained checkpoint: in the results beside it."""
    name = naming.path("diagnostics", model=str(naming.model_of_path("pretrained", str(file))))
    beside = root_of(file) / name
    return beside if beside.exists() else Path(name)


def root_of(file: Path) -> Path:
    """The folder that holds ``results`` or ``resources``, of a checkpoint or diagnostics in there."""
    return file.resolve().parent.parent.parent


def made_of(
    found: dict[str, Any], backbone: Path, root: Path, result_version: str
) -> list[dict[str, str]]:
    """Whether what the diagnostics were made of is still what lies there, as checks like the others."""
    from remit.dataset.windows import open_dataset
    from remit.files import sha256_of
    from remit.training import checkpoint

    checks = []
    primary = root / naming.path("primary", dataset=found["dataset"])
    split = root / naming.path("split", dataset=found["dataset"])
    for what, key, file, now in (
        (
            "backbone",
            "backbone_sha256",
            backbone,
            lambda file: checkpoint.backbone_sha256(checkpoint.load(file, "pretrained")),
        ),
        (
            "primary dataset",
            "content_sha256",
            primary,
            lambda file: open_dataset(file).metadata["content_sha256"],
        ),
        ("split", "split_sha256", split, sha256_of),
    ):
        status, text = "warn", f"{file} is not there and was not compared"
        if file.exists():
            try:
                same = now(file) == found[key]
                status = "pass" if same else "fail"
                text = f"{file} is {'the same' if same else 'another one now'}"
            except RemitError as error:
                status, text = "fail", str(error)
        checks.append((f"made of this {what}", status, text, "the same SHA-256"))
    version = found["settings"]["result_version"]
    same = version == result_version
    checks.append(
        ("made by this version", "pass" if same else "fail", f"version {version}", result_version)
    )
    why = "else it says nothing of what is there now; ask snakemake for it again"
    return [
        {"name": name, "status": status, "found": text, "expected": expected, "why": why}
        for name, status, text, expected in checks
    ]


def _panels(found: dict[str, Any], columns: int) -> tuple[Any, Any]:
    targets = list(found["masked"]["as trained"])
    few = f", as are all with fewer than {FEWEST_TO_TRUST} participants"
    return canvas(
        *(len(targets), columns, (4.4 * columns, 0.4 + 3.2 * len(targets))),
        title=f"{found['model']}: {found['n']} participants that it has not seen\n"
        "skill with 95 % intervals over participants; filled: above 0 or below it, hollow: undecided"
        + few
        * (found["n"] < FEWEST_TO_TRUST),
        flags=["SIMULATED DATA"] if found["simulated"] else [],
    )


def _points(axis: Any, names: list[str], figures: list[dict[str, Any]]) -> None:
    """Skills with their intervals, one under the other; coloured where they are beyond doubt."""
    for row, figure in enumerate(figures):
        if figure["value"] is None:
            continue
        color = BLUE if above(figure) else VERMILION if below(figure) else GREY
        if figure["low"] is not None:
            axis.plot([figure["low"], figure["high"]], [row, row], color=color)
        decided = "white" if color == GREY else color
        axis.plot(figure["value"], row, "o", markersize=5, color=color, markerfacecolor=decided)
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.5, -0.5)
    # Differences of a thousandth must not look like much.
    left, right = axis.get_xlim()
    axis.set_xlim(min(left, -NARROWEST), max(right, NARROWEST))
    axis.locator_params(axis="x", nbins=5)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)


def draw_skill(found: dict[str, Any], file: Path) -> None:
    """Skill of the model against each rival, for each target and kind of block, with their errors."""
    figure, panels = _panels(found, len(found["masked"]))
    for column, (kind, of_target) in enumerate(found["masked"].items()):
        for row, (what, figures) in enumerate(of_target.items()):
            robust = figures[ALL]["robust"]
            errors = {name: each["value"] for name, each in robust["error"].items()}
            names = sorted(robust["against"], key=errors.__getitem__)
            axis = panels[row, column]
            shown = [f"{name} ({errors[name]:.3f})" for name in names]
            _points(axis, shown, [robust["against"][name] for name in names])
            own = errors["model"]
            title = f"{what}, {kind} masks\nerror of the model " + (
                "undefined" if own is None else f"{own:.3f}"
            )
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("1 - error / error of the rival (smooth L1)", fontsize=9)
    save(figure, file)


def draw_bands(found: dict[str, Any], file: Path) -> None:
    """Skill against the best rival in each frequency band, for each target and kind of block."""
    figure, panels = _panels(found, len(found["masked"]))
    for column, (kind, of_target) in enumerate(found["masked"].items()):
        for row, (what, figures) in enumerate(of_target.items()):
            parts = [part for part in figures if part not in ("correlation", "variance_ratio")]
            axis = panels[row, column]
            shown = [f"{part} ({figures[part]['robust']['best_rival']})" for part in parts]
            _points(axis, shown, [figures[part]["robust"]["skill"] for part in parts])
            axis.set_title(f"{what}, {kind} masks", fontsize=9)
            axis.set_xlabel("1 - error / error of the best rival (smooth L1)", fontsize=9)
    save(figure, file)


def draw_checks(found: dict[str, Any], file: Path) -> None:
    """Every check with its verdict, what was found and what was expected, worst first."""
    order = {"fail": 0, "warn": 1, "pass": 2}
    checks = sorted(found["checks"], key=lambda check: order[check["status"]])
    counts = {status: sum(c["status"] == status for c in checks) for status in VERDICTS}
    cells = [
        [
            textwrap.wrap(check[key], width) or [""]
            for key, width in zip(_KEYS, _WIDTHS, strict=True)
        ]
        for check in checks
    ]
    heights = [max(len(lines) for lines in row) + 0.6 for row in cells]
    figure, ((axis,),) = canvas(
        1,
        1,
        (14, 1.3 + 0.155 * sum(heights)),
        title=f"{found['model']}: did pretraining learn signal? {found['n']} participants that it has not "
        f"seen\n{counts['fail']} of {len(checks)} checks fail, {counts['warn']} warn, "
        f"{counts['pass']} pass",
        flags=["SIMULATED DATA"] if found["simulated"] else [],
    )
    axis.set_axis_off()
    axis.set(xlim=(0, 1), ylim=(sum(heights) + 1.6, 0))
    for left, text in zip((0.012, *_LEFT), ("verdict", "check", "found", "expected"), strict=True):
        axis.text(left, 0.6, text, fontsize=9, weight="bold", va="center")
    top = 1.4
    for check, row, height in zip(checks, cells, heights, strict=True):
        axis.plot([0, 1], [top, top], color="0.85", linewidth=0.8)
        color, marker = VERDICTS[check["status"]]
        middle = top + height / 2
        axis.plot(0.02, middle, marker, color=color, markersize=8, gid=f"verdict {check['status']}")
        axis.text(0.033, middle, check["status"].upper(), fontsize=8, weight="bold", va="center")
        for left, lines in zip(_LEFT, row, strict=True):
            axis.text(left, middle, "\n".join(lines), fontsize=7.5, va="center", linespacing=1.15)
        top += height
    save(figure, file)
