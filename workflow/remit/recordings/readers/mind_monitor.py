"""Mind Monitor's CSV: one row per sample, a date and time in text, `RAW_` columns in microvolts.

Columns vary by version and device: `TimeStamp`, band powers (`Delta_TP9` ...), `RAW_TP9` ...,
`AUX_...`, motion, light, `HeadBandOn`, `HSI_TP9` ..., `Battery`, `Elements`. Traps:

- The app stamps packets when they arrive: a dozen or four dozen rows within a few milliseconds,
  then nothing for up to a tenth of a second. Their steps say nothing of the rate.
- Logged at an interval (a row each half or whole second), the file holds no EEG spectrum at all.
- Events (blinks, markers) are rows of their own without samples.
- Rows of samples may have a cell less than the header, for nothing is in `Elements`.
- RAW values are 0 to about 1682 µV around some 800; a high-pass takes the offset off.
- A spreadsheet writes it with `;`, decimal commas, `sep=;` or a blank line before the header.
- A spreadsheet that opened and saved the file leaves `51:54.6` of the time.

`HeadBandOn` (1, 0) and `HSI_...` (1 good, 2 medium, 4 bad) become `worn_S` and `contact_CS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.errors import RemitError, some_of
from remit.files import sha256_of
from remit.recordings import table
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Reader, ReaderOptions

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording

TIME = "timestamp"
TIMES = (TIME, "timestamps")  # the second is muse-lsl's, unless the headset's word stands beside it
RAW, HSI = "raw_", "hsi_"
WORN, EVENTS = "headbandon", "elements"
BANDS = ("delta_", "theta_", "alpha_", "beta_", "gamma_")
DEVICE_RATES = (256.0, 220.0)  # Hz: Muse 2016 and later; Muse 2014
WORST_CONTACT = 2.0  # HSI of 1 is good, 2 is medium, 4 is bad


def matches(path: Path) -> bool:
    """Whether the first line names `TimeStamp` and a RAW, band, HSI or HeadBandOn column."""
    return table.start(path, _is_header) is not None


def _is_header(cells: Sequence[str]) -> bool:
    names = [name.lower() for name in cells]
    telling = (RAW, HSI, *BANDS) if TIME in names else (HSI,)
    return any(time in names for time in TIMES) and any(
        name == WORN or name.startswith(telling) for name in names
    )


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The RAW channels of a Mind Monitor file, with the headset's word on contact.

    Raises RemitError for a file without RAW columns, one logged at an interval, stamps that are no
    date and time or give the rate of no Muse, and for what `table` refuses.
    """
    import numpy as np

    from remit.recordings.clock import cut_missing, measure
    from remit.recordings.recording import Recording
    from remit.recordings.units import UNSTATED, parse

    path = Path(row.path)
    source = str(path)
    text = table.load(path, options.allow_truncated)
    start = table.start(path, _is_header)
    if start is None:
        raise RemitError(
            f"{path}: its first line is no header of Mind Monitor; expected 'TimeStamp' and columns "
            "such as RAW_TP9; check what program wrote it."
        )
    header = list(start.header)
    named = _named(path, header)
    by_channel = _electrodes(path, header, RAW)
    if not by_channel:
        raise RemitError(
            f"{path}: has no RAW columns, only {table.listed(header[:4])} ...; expected RAW_TP9 and the "
            "like: band powers are no EEG; record in Mind Monitor with RAW data switched on."
        )
    if (options.units or "").strip().lower() not in UNSTATED and parse(options.units or "") != 1.0:
        raise RemitError(
            f"{path}: units states '{table.shown(options.units or '')}', but Mind Monitor's RAW "
            "columns are microvolts; expected them to agree; correct units or remove it."
        )
    shown = [table.cells(line, start.delimiter) for line in start.lines]
    samples = [found for found in shown if not _is_event(found, by_channel.values(), start.decimal)]
    width = _width(header, samples, by_channel.values())
    contact = {
        channel: index for channel, index in _electrodes(path, header, HSI).items() if index < width
    }
    kinds: dict[int, table.Kind] = {
        named[TIME]: _time_kind(path, samples or shown, named[TIME], start.decimal)
    }
    kinds |= dict.fromkeys(by_channel.values(), "sample")
    kinds |= dict.fromkeys(contact.values(), "sample")
    if named.get(WORN, width) < width:
        kinds[named[WORN]] = "sample"
    if named.get(EVENTS, width) < width:
        kinds[named[EVENTS]] = "text"
    events: list[str] = []

    def leave_out(found: list[str]) -> bool:
        """Whether an odd row is an event; pyarrow asks, and so does the search for an error."""
        if not _is_event(found, by_channel.values(), start.decimal):
            return False
        events.append(next((cell for cell in reversed(found) if cell), ""))
        return True

    found = table.columns(
        text,
        header,
        kinds,
        header_lines=start.header_lines,
        delimiter=start.delimiter,
        decimal=start.decimal,
        width=width,
        leave_out=leave_out,
    )
    raw_CS = np.stack([found[index] for index in by_channel.values()])
    if named.get(EVENTS) in found:
        marks = [table.decoded(mark or b"").strip() for mark in found[named[EVENTS]]]
        marked_S = np.array([mark not in table.MISSING for mark in marks])
        event_S = marked_S & np.isnan(raw_CS).all(axis=0)
        events += [marks[index] for index in np.flatnonzero(marked_S)]
        if event_S.any():
            found = {
                index: values[~event_S] for index, values in found.items() if index != named[EVENTS]
            }
    if not found[named[TIME]].size:
        raise RemitError(
            f"{path}: holds events only ({table.listed(events, 3)}); expected rows of samples; leave "
            "this recording out."
        )
    stamps_S, notes = table.seconds(found[named[TIME]], source, header[named[TIME]])
    by_channel, empty = table.without_empty(by_channel, found, header, source)
    signal_CS = np.stack([found[index] for index in by_channel.values()])
    table.refuse_repeats(stamps_S, signal_CS, source)
    timing = measure(stamps_S, DEVICE_RATES, source)
    rate = timing.sampling_rate
    if rate not in DEVICE_RATES:
        raise RemitError(
            f"{path}: the time stamps give {rate:.2f} rows per second; expected the rate of a Muse "
            f"({some_of(f'{each:g}' for each in DEVICE_RATES)} Hz); set Mind Monitor's recording "
            "interval to 'Constant' and record again."
        )
    segments, kept_S, missing = cut_missing(timing.segments, np.isnan(signal_CS).any(axis=0), rate)
    worn_S = _worn(found, named)
    contact_CS = _contact(found, contact, by_channel, worn_S)
    used = {*by_channel.values(), *contact.values(), *named.values()}
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=signal_CS if kept_S.all() else signal_CS[:, kept_S],
        sampling_rate=rate,
        channels=tuple(by_channel),
        segments=segments,
        prewindowed=False,
        simulated=False,
        source_sha256=sha256_of(path),
        left_out=tuple(name for index, name in enumerate(header) if name and index not in used),
        notes=(
            *text.notes,
            *notes,
            *empty,
            *timing.notes,
            *missing,
            *_event_note(events),
        ),
        contact_CS=None if contact_CS is None else contact_CS[:, kept_S],
        worn_S=None if worn_S is None else worn_S[kept_S],
    )


def _named(path: Path, header: list[str]) -> dict[str, int]:
    """Position of the columns that are there once: time, headband, events."""
    lower = [TIME if name.lower() in TIMES else name.lower() for name in header]
    for name in (TIME, WORN, EVENTS):
        if lower.count(name) > 1:
            raise RemitError(
                f"{path}: two columns are '{table.shown(header[lower.index(name)])}'; expected one; "
                "rename or remove one."
            )
    return {name: lower.index(name) for name in (TIME, WORN, EVENTS) if name in lower}


def _electrodes(path: Path, header: list[str], prefix: str) -> dict[str, int]:
    """Position of each column `prefix` + electrode, by the electrode's 10-10 name."""
    from remit.recordings.channels import electrodes

    by_channel: dict[str, int] = {}
    places = [index for index, name in enumerate(header) if name.lower().startswith(prefix)]
    channels = electrodes([header[index][len(prefix) :] for index in places])
    for index, channel in zip(places, channels, strict=True):
        if channel in by_channel:
            raise RemitError(
                f"{path}: two columns are '{table.shown(header[index])}' ({channel}); expected one; "
                "rename or remove one."
            )
        if channel:
            by_channel[channel] = index
    return by_channel


def _is_event(found: list[str], samples: Any, decimal: str) -> bool:
    """Whether a row has text behind its time and no samples; 'null' is no text but a lack."""
    empty = all(
        index >= len(found) or not table.is_number(found[index], decimal) for index in samples
    )
    return empty and any(
        cell not in table.MISSING and not table.is_number(cell, decimal) for cell in found[1:]
    )


def _width(header: list[str], samples: Sequence[list[str]], raw: Any) -> int:
    """Cells in a row of samples: as many as the header, or one less without `Elements`."""
    lengths = Counter(len(found) for found in samples)
    usual = lengths.most_common(1)[0][0] if lengths else len(header)
    short = header[-1].lower() == EVENTS and usual == len(header) - 1
    return usual if short and usual > max(raw) else len(header)


def _time_kind(path: Path, samples: Sequence[list[str]], index: int, decimal: str) -> table.Kind:
    kind, cell = table.time_kind(samples, index, decimal)
    if kind is not None:
        return kind
    raise RemitError(
        f"{path}: the time stamps are such as '{table.shown(cell, 40)}'; expected a date and time such as "
        "2018-11-22 17:21:18.123; use the file as the app wrote it: a spreadsheet that saves it "
        "cuts the time."
    )


def _worn(found: dict[int, Any], named: dict[str, int]) -> np.ndarray | None:
    import numpy as np

    values_S = found.get(named.get(WORN, -1))
    if values_S is None or np.isnan(values_S).all():
        return None
    worn_S: np.ndarray = values_S == 1  # an empty cell reports nothing, so not that it is on
    return worn_S


def _contact(
    found: dict[int, Any],
    contact: dict[str, int],
    by_channel: dict[str, int],
    worn_S: np.ndarray | None,
) -> np.ndarray | None:
    """bool [C, S]: HSI of 1 or 2 with the band on; where a channel has no HSI, the band on."""
    import numpy as np

    known = {
        channel: found[index]
        for channel, index in contact.items()
        if not np.isnan(found[index]).all()
    }
    if not any(channel in known for channel in by_channel):
        return None
    size = next(iter(known.values())).size
    on_S = np.ones(size, dtype=bool) if worn_S is None else worn_S
    return np.stack(
        [
            on_S & (known[channel] >= 1) & (known[channel] <= WORST_CONTACT)
            if channel in known
            else on_S
            for channel in by_channel
        ]
    )


def _event_note(events: list[str]) -> list[str]:
    if not events:
        return []
    counted = Counter(table.shown(" ".join(event.split())) for event in events)
    # Sorted, for the parser's threads find them in any order.
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    listed = some_of(f"{event} ({count})" for event, count in ordered)
    return [f"{len(events)} events are not used: {listed}."]


READER = Reader(
    name="Mind Monitor CSV",
    suffixes=table.SUFFIXES,
    matches=matches,
    read=read,
    expects="a first line with 'TimeStamp' and columns such as RAW_TP9",
    takes=(
        "RAW channels by name, with their offset",
        "rate (256 or 220 Hz) and gaps from stamps in bursts",
        "HeadBandOn and HSI as contact",
        "commas, semicolons and tabs; decimal commas; blank lines and 'sep=;' before the header",
        "events counted and left out, band powers and motion left out",
        *table.TAKES,
    ),
    refuses=(
        "a log at an interval (1 Hz and the like)",
        "band powers without RAW columns",
        "stamps that a spreadsheet has cut",
        "the rate of no Muse",
        "two decimal signs",
        *table.REFUSES,
    ),
)
