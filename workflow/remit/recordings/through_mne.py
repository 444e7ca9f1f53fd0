"""What the readers that go through MNE share: channels, microvolts, segments, errors.

MNE's traps that are met here: it reads into float64 (an hour of 64 channels is 1 GB), so the
signal is fetched piece by piece; it joins what was recorded in pieces and only annotates the joins,
and gives zeros where an acquisition was paused, so annotations become segments; it speaks of cut
files in warnings, which are collected for the reader to judge.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.errors import RemitError, some_of
from remit.files import sha256_of
from remit.recordings.clock import same_rate
from remit.recordings.cohort import SheetRow

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording, Segment
    from remit.recordings.registry import ReaderOptions

CHUNK_SECONDS = 60
_TOLD = 5  # breaks that get a note of their own
# An annotation stands between two samples in EEGLAB and on one in MNE, in float32 seconds.
_ANNOTATION_SLACK = 0.25
_REFERENCE = re.compile(r"^(.*?)\s*[\s_-]\s*([^\s_-]+)$")


@dataclass(frozen=True)
class Break:
    """A place where the recording was interrupted.

    `sample` is the first one after it; `gap_seconds` how long nothing was recorded, None where
    the file does not say.
    """

    sample: int
    gap_seconds: float | None


@dataclass(frozen=True)
class Choice:
    """The channels to use: `rows` maps an electrode to its row in the file, in the file's order.

    `left_out` has the file's names of the others, `notes` why one with an electrode's name is
    among them, and the references that the names state.
    """

    rows: dict[str, int]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def header_number(path: Path, what: str, text: str) -> float:
    """A number of a header; raises RemitError for what is none or beyond all bounds."""
    bare = text.split("\0")[0].strip().replace(",", ".")
    try:
        number = float(bare)
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e12:  # also refuses NaN
        raise RemitError(
            f"{path}: the header's {what} is '{bare}'; expected a number; the header is damaged, "
            "copy or export it again."
        )
    return number


@contextmanager
def guarded(path: Path, what: str, library: str = "MNE") -> Iterator[list[str]]:
    """Call a library: its exceptions become a RemitError, its warnings the list that is yielded.

    `what` says what kind of file was expected.
    """
    import mne

    messages: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught, mne.use_log_level("warning"):
            warnings.simplefilter("always")
            try:
                yield messages
            finally:
                messages += [" ".join(str(warning.message).split()) for warning in caught]
    except RemitError:
        raise
    except Exception as error:  # the libraries raise many kinds for a damaged file
        raise RemitError(
            f"{path}: {library} cannot read it ({type(error).__name__}: {str(error)[:300]}); "
            f"expected a sound {what}; copy or export it again."
        ) from error


def choose(path: Path, labels: Sequence[str], unusable: Mapping[int, str]) -> Choice:
    """Pick the EEG channels by their names.

    `labels` are the file's names by row; `unusable` says of a row why it is no EEG whatever its
    name, such as 'the file calls it EOG'. Raises RemitError for two channels of one electrode and
    where none is left.
    """
    from remit.recordings.channels import electrodes

    rows: dict[str, int] = {}
    left_out, notes = [], []
    for row, (label, electrode) in enumerate(zip(labels, electrodes(labels), strict=True)):
        if electrode is None or row in unusable:
            left_out.append(label)
            if electrode is not None:
                notes.append(f"Channel {label} is left out: {unusable[row]}.")
        elif electrode in rows:
            raise RemitError(
                f"{path}: channels '{labels[rows[electrode]]}' and '{label}' are both {electrode}; "
                "expected each electrode once; export without one of them."
            )
        else:
            rows[electrode] = row
    if not rows:
        why = f" {notes[0]}" if notes else ""
        raise RemitError(
            f"{path}: no EEG channel; it has {some_of(labels, 20)}; expected 10-10 names such as "
            f"Fp1; rename the channels.{why}"
        )
    notes += stated_references([labels[row] for row in rows.values()])
    return Choice(rows, tuple(left_out), tuple(notes))


def stated_references(labels: Sequence[str]) -> list[str]:
    """A note of the references that electrodes' names state (`Fp1-A2`, `EEG C3-Ref`), if any.

    `labels` are the file's names of channels that are used.
    """
    from remit.recordings.channels import REFERENCES, canonical

    stated: dict[str, str] = {}
    for label in labels:
        parts = _REFERENCE.match(label.strip().rstrip("."))
        if parts and parts[2].lower() in REFERENCES and canonical(parts[1]) is not None:
            stated.setdefault(parts[2].lower(), parts[2])
    if not stated:
        return []
    many = "references" if len(stated) > 1 else "reference"
    return [f"The channel names state the {many} {some_of(stated.values(), 20)}."]


def unused(
    options: ReaderOptions,
    *,
    rate: float | None = None,
    channel_names: bool = False,
    units: bool = False,
) -> list[str]:
    """A note for each thing that the sheet or the config states and the file states itself.

    `rate` is the file's own, in Hz, where it has one; a stated one that is the same needs no note.
    """
    notes = []
    stated = options.sampling_rate
    if rate and stated and not same_rate(rate, stated):
        notes.append(f"sampling_rate ({stated:g} Hz) is not used: the file states {rate:g} Hz.")
    if channel_names and options.channel_names:
        notes.append("channel_names are not used: the file states its own.")
    if units and options.units:
        notes.append("units are not used: the file states its own.")
    return notes


def microvolts(
    raw: Any,
    rows: Sequence[int],
    scale_C: Sequence[float],
    stretches: Sequence[tuple[int, int]],
) -> np.ndarray:
    """float32 microvolts [C, S] of these rows of an MNE Raw, fetched a minute at a time.

    `scale_C`: microvolts in one of what MNE calls a volt, for each row; `stretches`: which samples
    are read, [start, stop), and put one after another. To be called inside `guarded`.
    """
    import numpy as np

    samples = sum(stop - start for start, stop in stretches)
    signal_CS = np.empty((len(rows), samples), dtype=np.float32)
    factor_C1 = np.array(scale_C, dtype=np.float64)[:, np.newaxis]
    step = max(1, round(CHUNK_SECONDS * raw.info["sfreq"]))
    written = 0
    for first, last in stretches:
        for start in range(first, last, step):
            stop = min(start + step, last)
            chunk_CS = raw.get_data(picks=list(rows), start=start, stop=stop)
            with np.errstate(over="ignore"):  # becomes infinite, which a recording refuses
                place_CS = signal_CS[:, written : written + stop - start]
                np.multiply(chunk_CS, factor_C1, out=place_CS, casting="unsafe")
            written += stop - start
    return signal_CS


def without(
    skips: Sequence[tuple[int, int]], breaks: Sequence[Break], samples: int, rate: float
) -> tuple[list[tuple[int, int]], list[Break]]:
    """The stretches that are left when `skips` are taken out, and the breaks counted in them.

    Every skip inside the recording is a break of its own length. Samples are [start, stop).
    """
    stretches: list[tuple[int, int]] = []
    cuts: list[tuple[int, int]] = []  # merged
    end = 0
    for start, stop in sorted(skips):
        start, stop = max(start, end), min(stop, samples)
        if start >= stop:
            continue
        if start > end:
            stretches.append((end, start))
        cuts.append((start, stop))
        end = stop
    if end < samples:
        stretches.append((end, samples))

    def place(sample: int) -> int:
        return sample - sum(min(stop, sample) - start for start, stop in cuts if start < sample)

    moved = [Break(place(at.sample), at.gap_seconds) for at in breaks]
    moved += [Break(place(stop), (stop - start) / rate) for start, stop in cuts]
    return stretches, moved


def interruptions(raw: Any, late: int = 0) -> tuple[list[Break], list[tuple[int, int]], list[str]]:
    """What the annotations of an MNE Raw say: breaks, stretches without data, notes.

    Stretches are [start, stop) in samples; `late` is by how many the annotations come too late.
    EEGLAB's 'boundary' says how much was cut out, unless it reaches to the end of the data, where
    MNE cuts annotations off; MNE's 'BAD boundary' and BrainVision's 'New Segment/' do not say it;
    'BAD_ACQ_SKIP' was never recorded. Other stretches that are called bad are left in and noted.
    """
    rate = float(raw.info["sfreq"])
    gaps: dict[int, float | None] = {}
    skips: set[tuple[int, int]] = set()
    bad: dict[str, float] = {}
    for annotation in raw.annotations:
        name = str(annotation["description"])
        bare = name.strip().lower()
        seconds = float(annotation["duration"])
        place = (float(annotation["onset"]) - raw.first_time) * rate - late
        sample = math.ceil(place - _ANNOTATION_SLACK)
        if bare == "bad_acq_skip":
            skips.add((max(0, sample), sample + round(seconds * rate)))
        elif bare in ("bad boundary", "edge boundary") or bare.startswith("new segment/"):
            gaps.setdefault(sample, None)
        elif bare == "boundary":
            whole = place + late + seconds * rate < raw.n_times - 1.5
            known = seconds if seconds > 0 and whole else None
            gaps[sample] = known if known is not None else gaps.get(sample)
        elif bare.startswith(("bad", "edge")):
            bad[name] = bad.get(name, 0.0) + seconds
    notes = []
    if bad:
        notes.append(
            f"The file marks {sum(bad.values()):.3g} s as bad ({some_of(bad)}); they are kept."
        )
    return [Break(sample, gap) for sample, gap in gaps.items()], sorted(skips), notes


def digest_of(paths: Sequence[Path]) -> str:
    """The SHA-256 of one file, or of the SHA-256 of each where a recording has several."""
    if len(paths) == 1:
        return sha256_of(paths[0])
    return hashlib.sha256("".join(sha256_of(path) for path in paths).encode()).hexdigest()


def recording_of(
    row: SheetRow,
    path: Path,
    signal_CS: np.ndarray,
    rate: float,
    labels: Sequence[str],
    choice: Choice,
    *,
    breaks: Sequence[Break] = (),
    window: int | None = None,
    notes: Sequence[str] = (),
    bads: Sequence[str] = (),
    mains_hz: float | None = None,
    files: Sequence[Path] = (),
) -> Recording:
    """The recording of microvolts [C, S] whose rows are those of `choice`, in its order.

    `labels` are the file's names by row, `bads` those of them that the file calls bad. Samples
    that are NaN are taken out, and segments end there and at `breaks`. `window`: the file holds
    windows of so many samples, and one with a missing sample is left out whole. `files` are all
    that the recording consists of. Changes `signal_CS`. Raises RemitError where nothing is left.
    """
    import numpy as np

    from remit.recordings.recording import Recording

    samples = signal_CS.shape[1]
    notes, left_out = [*choice.notes, *notes], list(choice.left_out)
    missing_S = np.zeros(samples, dtype=bool)
    kept, holed = [], []
    for electrode, signal_S in zip(choice.rows, signal_CS, strict=True):
        nan_of_S = np.isnan(signal_S)
        if nan_of_S.all():
            left_out.append(labels[choice.rows[electrode]])
            notes.append(f"Channel {left_out[-1]} is left out: it has no values (NaN).")
            continue
        kept.append(electrode)
        if nan_of_S.any():
            missing_S |= nan_of_S
            holed.append(electrode)
    if holed:
        notes.append(
            f"{_stretches(missing_S, rate)} without values (NaN in {some_of(holed)}): segments end "
            "there."
        )
    if window is not None and missing_S.any():
        holed_W = missing_S[: samples // window * window].reshape(-1, window).any(axis=1)
        notes.append(f"{int(holed_W.sum())} of {holed_W.size} windows have such and are left out.")
        missing_S[: holed_W.size * window] = np.repeat(holed_W, window)
    if not kept or missing_S.all():
        raise RemitError(
            f"{path}: has no sample with a value on {some_of(kept or choice.rows)}; expected a "
            "signal; leave this recording out."
        )
    if window is not None:
        known = {at.sample: at.gap_seconds for at in breaks}
        breaks = [Break(start, known.get(start, 0.0)) for start in range(window, samples, window)]
    segments, told = _segments(missing_S, breaks, rate)
    if window is None:
        notes += told
    if len(kept) < len(choice.rows):
        wanted = [list(choice.rows).index(electrode) for electrode in kept]
        signal_CS = signal_CS[wanted]
    if missing_S.any():
        count = samples - int(missing_S.sum())
        for signal_S in signal_CS:
            signal_S[:count] = signal_S[~missing_S]
        signal_CS = signal_CS[:, :count]
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=signal_CS,
        sampling_rate=rate,
        channels=tuple(kept),
        segments=segments,
        prewindowed=window is not None,
        simulated=False,
        source_sha256=digest_of(files or [path]),
        left_out=tuple(sorted(left_out, key=list(labels).index)),
        notes=tuple(notes),
        bad_channels=tuple(
            electrode for electrode in kept if labels[choice.rows[electrode]] in bads
        ),
        mains_hz=mains_hz,
    )


def _segments(
    missing_S: np.ndarray, breaks: Sequence[Break], rate: float
) -> tuple[tuple[Segment, ...], list[str]]:
    """Segments over the samples that are not missing, counted without them, and what to say."""
    import numpy as np

    from remit.recordings.recording import Segment

    samples = missing_S.size
    inside = sorted((at for at in breaks if 0 < at.sample < samples), key=lambda at: at.sample)
    edges_S = np.flatnonzero(np.diff(missing_S.astype(np.int8))) + 1
    edges = sorted({0, samples, *edges_S.tolist(), *(at.sample for at in inside)})
    lost = 0.0  # seconds in the gaps so far
    waiting = list(inside)
    segments: list[Segment] = []
    first_onset = 0.0
    written = 0
    for start, stop in pairwise(edges):
        while waiting and waiting[0].sample <= start:
            lost += waiting.pop(0).gap_seconds or 0.0
        if missing_S[start]:
            continue
        onset = start / rate + lost
        if not segments:
            first_onset = onset
        end = written + stop - start
        segments.append(Segment(written, end, round(onset - first_onset, 6)))
        written = end
    return tuple(segments), _told(inside, rate)


def _told(breaks: Sequence[Break], rate: float) -> list[str]:
    notes = []
    for at in breaks[:_TOLD]:
        where = f"after {at.sample / rate:.3f} s of samples"
        if at.gap_seconds is None:
            notes.append(
                f"The recording was interrupted {where}; for how long the file does not say, so "
                "what follows is placed at once."
            )
        else:
            notes.append(f"Gap of {at.gap_seconds:.3f} s {where}.")
    others = breaks[_TOLD:]
    if others:
        unknown = sum(at.gap_seconds is None for at in others)
        seconds = sum(at.gap_seconds or 0.0 for at in others)
        notes.append(
            f"{len(others)} more interruptions: {len(others) - unknown} gaps of {seconds:.3f} s "
            f"together, {unknown} of unknown length."
        )
    return notes


def _stretches(missing_S: np.ndarray, rate: float) -> str:
    import numpy as np

    starts_S = np.flatnonzero(np.diff(missing_S.astype(np.int8), prepend=0) == 1)
    seconds = float(missing_S.sum()) / rate
    many = "stretch" if starts_S.size == 1 else "stretches"
    return f"{starts_S.size} {many} ({seconds:.3f} s, the first at {starts_S[0] / rate:.3f} s)"
