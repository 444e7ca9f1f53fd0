"""A backbone's embeddings in two dimensions, beside those of the same encoder with random weights.

Principal components of the participants' means (scikit-learn), nothing else: a method that makes
neighbours, as t-SNE, draws groups where there are none, and its distances have no meaning. Nothing
here is fitted to a label.

Shapes: W windows, P participants, R recordings, D model width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.decomposition import PCA

from remit.dataset.windows import METADATA_KEY, open_dataset
from remit.errors import RemitError
from remit.evaluation.candidates import SITE_WORDS, of_recording
from remit.recordings.cohort import SheetRow, read_sheet
from remit.recordings.scan import UNKNOWN
from remit.report.drawing import BLUE, CYCLE, GREY, VERMILION, canvas, save

RESULT_VERSION = 2  # raise when a change here alters the picture

FEWEST = 3  # participants, of whom two components say anything
MOST_NAMED = len(CYCLE)  # participants or sites that have a colour and a marker of their own
_CLASSES = {1: (VERMILION, "D"), 0: (BLUE, "o"), None: (GREY, "x")}


@dataclass(frozen=True)
class Embeddings:
    """Windows of a dataset as a backbone has them."""

    participant_W: np.ndarray
    recording_W: np.ndarray
    embedding_WD: np.ndarray
    metadata: Mapping[str, Any]

    def means(self, by_W: np.ndarray) -> tuple[list[str], np.ndarray]:
        """The mean of each group of windows: names, and [groups, D] in float64."""
        names, group_W = np.unique(by_W, return_inverse=True)
        sums = np.zeros((len(names), self.embedding_WD.shape[1]))
        np.add.at(sums, group_W, self.embedding_WD)
        return [str(name) for name in names], sums / np.bincount(group_W)[:, None]


def read_embeddings(file: Path) -> Embeddings:
    """What `remit embed` wrote; :class:`RemitError` for anything else."""
    try:
        table = pq.read_table(file, columns=["Participant", "recording", "embedding"])
        metadata = json.loads(table.schema.metadata[METADATA_KEY])
        if metadata["kind"] != "embeddings":
            raise KeyError("kind")
        metadata["model"], metadata["content_sha256"], metadata["simulated"], metadata["seen"]
        width = table.schema.field("embedding").type.list_size
        flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise RemitError(
            f"{file}: holds no embeddings ({type(error).__name__}); expected the parquet that "
            "'remit embed' wrote; ask snakemake for it."
        ) from None
    names = (table.column(key).to_numpy() for key in ("Participant", "recording"))
    participant_W, recording_W = (each.astype(str) for each in names)
    return Embeddings(participant_W, recording_W, flat.reshape(-1, width), metadata)


def site_of(rows: Sequence[SheetRow]) -> tuple[str, dict[str, str]]:
    """The sheet's first column of a site or device that differs, and each participant's; or none."""
    for column in dict.fromkeys(column for row in rows for column in row.covariates):
        if of_recording(column) & SITE_WORDS:
            found: dict[str, str] = {}
            for row in rows:
                text = row.covariates.get(column, "").strip()
                if text.lower() not in UNKNOWN:
                    found.setdefault(row.participant, text)
            if len(set(found.values())) > 1:
                return column, found
    return "", {}


def _dots(axis: Any, at_N2: np.ndarray, gid: str, style: tuple[str, str], **more: Any) -> None:
    color, marker = style
    filled = {} if marker == "x" else {"markeredgecolor": "white", "markeredgewidth": 0.6}
    axis.plot(
        at_N2[:, 0],
        at_N2[:, 1],
        marker,
        color=color,
        linestyle="none",
        gid=gid,
        **{"markersize": 7, **filled, **more},
    )


def _panels(
    axes: Sequence[Any],
    own: Embeddings,
    labels: Mapping[str, int | None],
    site: tuple[str, Mapping[str, str]],
    what: str,
) -> None:
    """One row: by label, by participant, by site."""
    people, mean_PD = own.means(own.participant_W)
    pca = PCA(2, svd_solver="full").fit(mean_PD)
    at_P2 = _upright(pca, mean_PD, mean_PD)
    recordings, mean_RD = own.means(own.recording_W)
    several = len(recordings) > len(people)
    at_R2 = _upright(pca, mean_RD, mean_PD)
    at_W2 = _upright(pca, own.embedding_WD, mean_PD)
    # The axes are those of the participants' means, along which windows vary in another measure.
    of_windows = at_W2.var(0) / own.embedding_WD.var(0, dtype=np.float64).sum()
    for axis in axes:
        by_window = axis is axes[1]
        share = of_windows if by_window else pca.explained_variance_ratio_
        whose = "windows'" if by_window else "participants'"
        for place, text in enumerate((axis.set_xlabel, axis.set_ylabel)):
            text(f"component {place + 1}: {share[place]:.0%} of the {whose} variance", fontsize=8)
        axis.set_aspect("equal", adjustable="datalim")
        axis.tick_params(labelsize=7)
        axis.grid(color="0.93")
        axis.set_axisbelow(True)
    of_P = np.array([-1 if labels[name] is None else labels[name] for name in people])
    if several:
        _dots(axes[0], at_R2, "recordings", (GREY, "o"), markersize=3, label="a recording")
    for label, style in _CLASSES.items():
        theirs_P = of_P == (-1 if label is None else label)
        if theirs_P.any():
            text = "no label" if label is None else f"class {label}"
            _dots(
                axes[0],
                at_P2[theirs_P],
                f"label {label}",
                style,
                label=f"{text} (n={theirs_P.sum()})",
            )
    axes[0].set_title(f"{what}\nby label; a mark is a participant (n={len(people)})", fontsize=9)
    named = people[:MOST_NAMED]
    other_W = ~np.isin(own.participant_W, named)
    if other_W.any():
        _dots(
            axes[1],
            at_W2[other_W],
            "other windows",
            ("0.85", "o"),
            markersize=2.5,
            markeredgewidth=0,
            label=f"{len(people) - len(named)} others",
        )
    for name, style in zip(named, CYCLE, strict=False):
        own_W = own.participant_W == name
        _dots(axes[1], at_W2[own_W], f"windows {name}", style, markersize=4, label=name, alpha=0.75)
    some = "" if len(named) == len(people) else f"; {len(named)} of {len(people)} in colour"
    axes[1].set_title(
        f"{what}\nby participant; a mark is a window (n={len(at_W2)}){some}", fontsize=9
    )
    if len(axes) == 3:
        column, of = site
        counts = {text: sum(of.get(name) == text for name in people) for text in set(of.values())}
        named = sorted(counts, key=lambda text: (-counts[text], text))[:MOST_NAMED]
        rest_P = np.array([of.get(name) not in named for name in people])
        if rest_P.any():
            _dots(axes[2], at_P2[rest_P], "site other", (GREY, "x"), label="others, unknown")
        for text, style in zip(named, CYCLE, strict=False):
            theirs_P = np.array([of.get(name) == text for name in people])
            _dots(
                axes[2],
                at_P2[theirs_P],
                f"site {text}",
                style,
                label=f"{text} (n={theirs_P.sum()})",
            )
        axes[2].set_title(
            f"{what}\nby {column}; a mark is a participant (n={len(people)})", fontsize=9
        )
    for axis in axes:  # beside the panel, as there is no corner where no mark may lie
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0.2)


def _upright(pca: Any, rows_ND: np.ndarray, mean_PD: np.ndarray) -> np.ndarray:
    """Components [N, 2] whose sign is that of the largest participant, so that they never flip."""
    at_P2 = pca.transform(mean_PD)
    far = at_P2[np.abs(at_P2).argmax(0), [0, 1]]
    turned: np.ndarray = pca.transform(rows_ND) * np.where(far < 0, -1, 1)
    return turned


def draw_embeddings(
    trained: Embeddings,
    random: Embeddings,
    labels: Mapping[str, int | None],
    site: tuple[str, Mapping[str, str]],
) -> Any:
    """The figure; in words, where there are too few participants for two components."""
    people = np.unique(trained.participant_W)
    flags = []
    if trained.metadata["transductive"]:
        flags.append("TRANSDUCTIVE: pretraining was allowed to see everybody")
    if trained.metadata["simulated"]:
        flags.append("SIMULATED DATA")
    seen = len(set(trained.metadata["seen"]) & set(people))
    title = (
        f"{trained.metadata['model']}: mean embeddings of {len(people)} participants, of whom pretraining "
        f"has seen {seen}"
    )
    if len(people) < FEWEST:
        figure, ((axis,),) = canvas(1, 1, (8, 1.8), title=title, flags=flags)
        axis.set_axis_off()
        axis.text(
            0.5, 0.5, f"Fewer than {FEWEST} participants have no plane of components.", ha="center"
        )
        return figure
    columns = 3 if site[0] else 2
    figure, axes = canvas(
        2,
        columns,
        (5.2 * columns, 7.4),
        title=f"{title}\nprincipal components of participants' means, each row its own; no label was used",
        flags=flags,
    )
    _panels(axes[0], trained, labels, site, "pretrained")
    _panels(axes[1], random, labels, site, "random weights")
    return figure


def write_embeddings_picture(
    *, embeddings: Path, random: Path, primary: Path, sheet: Path, file: Path
) -> str:
    """Draw; a line on what was. :class:`RemitError` when the files do not belong together."""
    trained, twin = (read_embeddings(each) for each in (embeddings, random))
    dataset = open_dataset(primary)
    for path, each in ((embeddings, trained), (random, twin)):
        found, expected = each.metadata["content_sha256"], dataset.metadata["content_sha256"]
        if found != expected:
            raise RemitError(
                f"{path}: was made of dataset {found[:12]}; expected {expected[:12]} of {primary}; ask "
                "snakemake for both again."
            )
    figure = draw_embeddings(trained, twin, dataset.labels, site_of(read_sheet(sheet)))
    save(figure, file)
    return f"{len(np.unique(trained.participant_W))} participants -> {file}"
