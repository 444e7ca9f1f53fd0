"""The models of a sweep: a table as files, a page that sorts it, and the grid as a picture.

Models are compared on the same dataset and the same split or not at all. The table is ordered by
name, never by a test figure: choosing the best row by its test figure would spend the test part, and
the page says so to whoever sorts by one. Reads files only; computes no figure of merit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from remit import naming, provenance
from remit.config import Execution
from remit.errors import RemitError
from remit.files import atomic_write, write_rows
from remit.naming import FINETUNED_SUFFIX, MASKING_STYLES, ModelName
from remit.report.drawing import canvas, save
from remit.report.model_report import kept_epoch, read_card, template, warnings_of
from remit.tracking import JOURNAL_TAG, Tracker

RESULT_VERSION = 3  # raise when a change here alters the table, the page or a picture

COMPARED = {"auc": "AUC", "accuracy": "accuracy", "f1": "F1"}
PARTS = {"val": "validation", "test": "test"}
ENDS = {"value": "", "low": "_low", "high": "_high"}
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("d_model", pa.int32()),
        ("num_layers", pa.int32()),
        ("mask_percent", pa.int32()),
        ("masking_style", pa.string()),
        ("simulated", pa.bool_()),
        ("transductive", pa.bool_()),
        ("waveform_explained", pa.float64()),
        ("spectrum_explained", pa.float64()),
        ("best_epoch", pa.int32()),
        *(
            field
            for part in PARTS
            for field in (
                (f"{part}_n", pa.int32()),
                *(
                    (f"{part}_{key}{end}", pa.float64())
                    for key in COMPARED
                    for end in ENDS.values()
                ),
            )
        ),
        ("report", pa.string()),  # from the table's folder
        ("mlflow_run", pa.string()),
    ]
)


# Table ---------------------------------------------------------------------------------------


def _name(card: Mapping[str, Any]) -> ModelName:
    return ModelName.parse(str(card["name"]).removesuffix(FINETUNED_SUFFIX))


def _order(name: ModelName) -> tuple[Any, ...]:
    return name.d_model, name.num_layers, name.masking_style, name.mask_percent


def _row(card: Mapping[str, Any], report: str | None, run: str | None) -> dict[str, Any]:
    kept = kept_epoch(dict(card))
    row: dict[str, Any] = {
        "model": str(card["name"]),
        "simulated": bool(card["data"]["simulated"]),
        "transductive": bool(card["pretrained"]["data"]["transductive"]),
        **_name(card).parts,
        "waveform_explained": kept["held_out_waveform_explained"],
        "spectrum_explained": kept["held_out_spectrum_explained"],
        "best_epoch": card["best_epoch"],
        "report": report,
        "mlflow_run": run,
    }
    for part in PARTS:
        row[f"{part}_n"] = card["metrics"][part]["n"]
        for key in COMPARED:
            figure = card["metrics"][part][key]
            row |= {f"{part}_{key}{end}": figure[what] for what, end in ENDS.items()}
    return row


def _as_text(value: Any) -> str:
    """A cell of the TSV."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4f}" if isinstance(value, float) else str(value)


# Page ----------------------------------------------------------------------------------------


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The heads of the page's table; what they hold stands in :data:`SCHEMA`."""
    heads: list[dict[str, Any]] = [
        {"key": "model", "text": "model"},
        {"key": "d_model", "text": "width", "number": True},
        {"key": "num_layers", "text": "blocks", "number": True},
        {"key": "mask_percent", "text": "masked (%)", "number": True},
        {"key": "masking_style", "text": "style"},
        {"key": "transductive", "text": "transductive"},
        {"key": "waveform_explained", "text": "waveform explained", "number": True},
        {"key": "spectrum_explained", "text": "spectrum explained", "number": True},
    ]
    for part, words in PARTS.items():
        counts = sorted({row[f"{part}_n"] for row in rows})
        n = ", ".join(map(str, counts))
        heads += [
            {
                "key": f"{part}_{key}",
                "text": f"{words} {text} (n={n})",
                "number": True,
                "test": part == "test",
                "interval": True,
            }
            for key, text in COMPARED.items()
        ]
    heads.append({"key": "mlflow_run", "text": "MLflow run"})
    return [{"number": False, "test": False, "interval": False} | head for head in heads]


def _cell(row: Mapping[str, Any], head: Mapping[str, Any], server: str | None) -> dict[str, Any]:
    """What a cell shows, what it is sorted by, and where it leads."""
    value = row[head["key"]]
    link = row["report"] if head["key"] == "model" else None
    text = (
        ""
        if value is None
        else f"{round(value, 3) + 0.0:.3f}"
        if isinstance(value, float)
        else str(value)
    )
    if isinstance(value, bool):
        text = "yes" if value else "no"
    if head["key"] == "mlflow_run":
        text = "none" if value is None else value
        link = f"{server}/#/runs/{value}" if server and value else None
    if head["interval"]:
        low, high = (row[f"{head['key']}{end}"] for end in ("_low", "_high"))
        text = (
            "undefined (one class only)"
            if value is None
            else f"{value:.2f} [{low:.2f}, {high:.2f}]"
        )
    sorts = "" if value is None else str(value)
    if head["key"] == "model":  # as the rows come
        sorts = f"{row['d_model']:05} {row['num_layers']:03} {row['masking_style']} {row['mask_percent']:03}"
    return {"text": text, "sorts": sorts, "link": link, "number": head["number"]}


def server_of(execution: Execution) -> str | None:
    """The address of MLflow's pages, without a password in it; None where no server was named."""
    try:
        parts = urlsplit(execution.mlflow_uri or "")
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return None
    # A password with a '/' or '#' of its own.
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _warnings(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """What must be said before any number, and of how many models where it is not of all."""
    found = Counter(text for card in cards for text in warnings_of(dict(card)))
    return [
        text if number == len(cards) else f"{number} of {len(cards)} models: {text}"
        for text, number in found.items()
    ]


# Picture -------------------------------------------------------------------------------------

_UNDECIDED = {"value": None, "low": None, "high": None}


def draw_grid(
    cells: Mapping[ModelName, Mapping[str, Any]],
    *,
    figure_of_merit: str,
    of: str,
    flags: Sequence[str] = (),
) -> Any:
    """Mask ratio × style as a heat map, one panel for each size of model.

    Args:
        cells: of each model ``value``, ``low``, ``high`` (None where there is none) and ``n``.
        figure_of_merit: what the values are, 0 to 1, with chance at 0.5.
        of: whom the figures are about.
        flags: what forbids believing it.

    Raises :class:`RemitError` without a model. A size that has no model of some ratio and style has a
    hatched cell there, and so has a model whose figure is undefined; both say which.
    """
    if not cells:
        raise RemitError(
            "a sweep's picture: found no model; expected one at least; give their cards."
        )
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    sizes = sorted({(name.d_model, name.num_layers) for name in cells})
    percents = sorted({name.mask_percent for name in cells})
    styles = [style for style in MASKING_STYLES if any(c.masking_style == style for c in cells)]
    high = 0.75 * len(styles) + 0.75
    figure, axes = canvas(
        len(sizes),
        1,
        (2.6 + 1.05 * max(3, len(percents)), 0.95 + 0.17 * len(flags) + high * len(sizes)),
        title=f"{figure_of_merit}, {of}\nin brackets: 95 % intervals over participants",
        flags=flags,
    )
    # Told apart by the colour-blind, and lighter is more in grey too (Nuñez et al. 2018).
    colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), mpl.colormaps["cividis"])
    for axis, (d_model, num_layers) in zip(axes.ravel(), sizes, strict=True):
        for row, style in enumerate(styles):
            for column, percent in enumerate(percents):
                name = ModelName(d_model, num_layers, percent, style)
                found = cells.get(name, _UNDECIDED)
                value, empty = found["value"], found["value"] is None
                colour = (1.0, 1.0, 1.0, 1.0) if empty else colours.to_rgba(value)
                axis.add_patch(
                    Rectangle(
                        (column - 0.5, row - 0.5),
                        1,
                        1,
                        facecolor=colour,
                        edgecolor="0.6" if empty else "white",
                        hatch="///" if empty else None,
                        gid=f"cell-{name}",
                    )
                )
                if name not in cells:
                    text = "no such model"
                elif empty:
                    text = f"undefined\n(one class)\nn={found['n']}"
                else:
                    text = f"{value:.2f}\n[{found['low']:.2f}, {found['high']:.2f}]\nn={found['n']}"
                dark = sum(w * c for w, c in zip((0.3, 0.59, 0.11), colour[:3], strict=True)) < 0.46
                axis.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="white" if dark else "black",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if empty else None,
                )
        axis.set(
            xlim=(-0.5, len(percents) - 0.5),
            ylim=(len(styles) - 0.5, -0.5),
            xlabel="tokens masked in pretraining (%)",
            ylabel="masking style",
        )
        axis.set_title(f"d_model {d_model}, {num_layers} layer{'s' * (num_layers > 1)}", fontsize=9)
        axis.set_xticks(range(len(percents)), [str(percent) for percent in percents])
        axis.set_yticks(range(len(styles)), styles)
        axis.tick_params(length=0)
    bar = figure.colorbar(colours, ax=axes.ravel().tolist(), label=figure_of_merit, fraction=0.05)
    bar.ax.axhline(0.5, color="white", linewidth=1.5)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "0.25", "0.5: chance", "0.75", "1"])
    return figure


def _flags(simulated: bool, transductive: bool) -> list[str]:
    found = {"TRANSDUCTIVE: pretraining has seen these people": transductive}
    return [text for text, true in (found | {"SIMULATED DATA": simulated}).items() if true]


def draw_evaluations(reports: Sequence[Mapping[str, Any]], file: Path) -> None:
    """The grid by the AUC of evaluations, which ``read_evaluation`` has read."""
    cells = {}
    for report in reports:
        own = next(each for each in report["candidates"] if each["kind"] == "model")["figures"]
        cells[ModelName.parse(report["model"])] = {**own["auc"], "n": own["n"]}
    reached = sum(any(each["reaches"] for each in report["nuisance"]) for report in reports)
    flags = [f"REACHED WITHOUT EEG: {reached} of {len(reports)} models"] * bool(reached)
    flags += _flags(
        any(report["dataset"]["simulated"] for report in reports),
        any(report["pretraining"]["transductive"] for report in reports),
    )
    of = "by cross-validation, each participant predicted by fits without them"
    if len(reports) > 1:
        of += f";\nthe best of {len(reports)} equally good ones looks good by chance: choose none by it"
    save(draw_grid(cells, figure_of_merit="AUC", of=of, flags=flags), file)


# MLflow --------------------------------------------------------------------------------------


def _track(
    execution: Execution,
    cards: Sequence[Mapping[str, Any]],
    journals: Sequence[str | None],
    files: Sequence[Path],
    log: Callable[[str], None],
) -> None:
    """One run for the sweep, and those that made its models below it.

    A sweep is told by what its models have in common: one more ratio goes into the run there is, and
    other settings of training make another.
    """
    first, names = cards[0]["data"], [_name(card) for card in cards]
    common = sorted(
        {
            json.dumps([card["pretrained"]["settings"], card["settings"]], sort_keys=True)
            for card in cards
        }
    )
    about = json.dumps([first["content_sha256"], first["split_sha256"], common])
    sizes = sorted({f"d{name.d_model}_l{name.num_layers}" for name in names})
    settings = [json.loads(each) for each in common]
    params: dict[str, Any] = {"split_sha256": first["split_sha256"]}
    if len(settings) == 1:
        params |= {"pretraining": settings[0][0], **settings[0][1]}
    tags = {
        "stage": "sweep",
        "sweep": hashlib.sha256(about.encode()).hexdigest()[:16],
        "git_commit": provenance.git_commit(),
        "dataset": first["dataset"],
        "cohort": first["cohort"],
        "content_sha256": first["content_sha256"],
        "simulated": str(any(card["data"]["simulated"] for card in cards)).lower(),
        "transductive": str(
            any(card["pretrained"]["data"]["transductive"] for card in cards)
        ).lower(),
        "models": str(len(cards)),
        "mask_percents": ", ".join(map(str, sorted({name.mask_percent for name in names}))),
        "masking_styles": ", ".join(sorted({name.masking_style for name in names})),
    }
    tracker = Tracker(
        execution,
        f"sweep_{'_'.join(sizes)}",
        {f"remit.{key}": str(value) for key, value in tags.items()},
        log,
        params,
        once="remit.sweep",
    )
    for card, journal in zip(cards, journals, strict=True):
        tracker.nest("remit.checkpoint_sha256", str(card["pretrained"]["fingerprint"]))
        if journal is not None:
            tracker.nest(JOURNAL_TAG, journal)
    tracker.artifacts(files)
    tracker.finish()


# All of it -----------------------------------------------------------------------------------


def write_comparison(
    *,
    cards: Sequence[Path],
    pages: Sequence[Path],
    table: Path,
    parquet: Path,
    page: Path,
    picture: Path,
    label: str,
    execution: Execution,
    log: Callable[[str], None],
) -> None:
    """Write the table (TSV and parquet), the page and the picture, and tell MLflow which models belong
    together; raises :class:`RemitError` if models differ in their data.

    Args:
        cards: of the models.
        pages: of the models; those of which one is given are linked to.
        table, parquet, page, picture: are written.
        label: the outcome in words.
        execution: where MLflow is.
        log: takes one line.
    """
    read = [read_card(file) for file in cards]
    first = read[0]["data"]
    for file, card in zip(cards, read, strict=True):
        for key in ("content_sha256", "split_sha256"):
            if card["data"][key] != first[key]:
                raise RemitError(
                    f"{file}: {key} is {card['data'][key][:12]}; expected {first[key][:12]} as in "
                    f"{cards[0]}; rebuild both from the same dataset and split."
                )
    # A record that is damaged is no reason to have no table; 'remit verify' speaks of it.
    ordered = sorted(zip(read, map(_run_of, cards), strict=True), key=lambda e: _order(_name(e[0])))
    contents, runs = [card for card, _ in ordered], [run for _, run in ordered]
    links = {
        naming.model_of_path("model_report", str(file)): os.path.relpath(file, page.parent)
        for file in pages
    }
    rows = [
        _row(card, links.get(_name(card)), run.get("run_id"))
        for card, run in zip(contents, runs, strict=True)
    ]
    write_rows(table, [{name: _as_text(row[name]) for name in SCHEMA.names} for row in rows])
    about = {key: str(first[key]) for key in ("dataset", "content_sha256", "split_sha256")}
    with atomic_write(parquet) as temporary:
        schema = SCHEMA.with_metadata({**about, "label": label})
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
    cells = {
        _name(card): {**card["metrics"]["val"]["auc"], "n": card["metrics"]["val"]["n"]}
        for card in contents
    }
    flags = _flags(any(row["simulated"] for row in rows), any(row["transductive"] for row in rows))
    of = "validation participants, who chose the epoch"
    drawn = save(draw_grid(cells, figure_of_merit="AUC", of=of, flags=flags), picture)
    server, heads = server_of(execution), _columns(rows)
    text = template("comparison.html.j2").render(
        heads=heads,
        rows=[[_cell(row, head, server) for head in heads] for row in rows],
        linked=bool(links),
        server=server,
        tracked=any(row["mlflow_run"] for row in rows),
        database=execution.mlflow_uri is None and naming.PATTERNS["mlflow_database"],
        warnings=_warnings(contents),
        label=label,
        data=first,
        picture=base64.b64encode(drawn).decode("ascii"),
    )
    with atomic_write(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    _track(execution, contents, [run.get("journal") for run in runs], [page, parquet], log)


def _run_of(card: Path) -> Mapping[str, str | None]:
    """The MLflow run that made a model, as the record beside its card says."""
    try:
        found = provenance.read(card)
    except RemitError:
        return {}
    return found["mlflow"] if found else {}
