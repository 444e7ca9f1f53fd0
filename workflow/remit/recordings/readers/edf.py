"""EDF, EDF+ and BDF through MNE, after a look at what MNE lets pass.

MNE opens a file cut in the middle and gives what is there, joins the gaps of EDF+D, raises slower
channels to the fastest one's rate and takes a unit it does not know for volts. So the header is
read here first: sizes, record onsets, rates and units are checked, and only EEG channels are asked
for. EDF: Kemp et al. 1992, doi:10.1016/0013-4694(92)90009-7; EDF+: Kemp and Olivan 2003,
doi:10.1016/S1388-2457(03)00123-8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from remit.errors import RemitError, some_of
from remit.files import sha256_of
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Reader, ReaderOptions
from remit.recordings.through_mne import (
    guarded,
    header_number,
    microvolts,
    stated_references,
    unused,
)
from remit.recordings.units import parse

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording, Segment

EDF_VERSION, BDF_VERSION = b"0       ", b"\xffBIOSEMI"
SIMULATED = "SIMULATED"  # the patient code of a simulated recording
ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
# What MNE makes one of a unit, in volts; any other unit it takes for volts.
MNE_VOLTS = {"uV": 1e-6, "µV": 1e-6, "μV": 1e-6, "\x83\xcaV": 1e-6, "mV": 1e-3, "V": 1.0}
# A file that lacks a smaller part, and no whole record, has lost bytes in its midst: a conversion of
# line ends takes 1 in 65536 by chance, more where the signal favours them. A cut takes more.
_A_FEW = 1e-3
MICROVOLT_BYTES = ("\x83\xcaV",)  # as a Japanese code page writes it
_FIXED = 256  # bytes of the fixed part, and of each signal's part
_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15\d+(?:\.\d*)?)?\x14")


@dataclass(frozen=True)
class _Signal:
    label: str
    unit: str
    physical: tuple[float, float]
    digital: tuple[float, float]
    samples: int  # per data record


@dataclass(frozen=True)
class _Header:
    bdf: bool
    patient: str
    reserved: str
    header_bytes: int
    records: int
    record_seconds: float
    signals: tuple[_Signal, ...]

    @property
    def sample_bytes(self) -> int:
        return 3 if self.bdf else 2

    @property
    def record_bytes(self) -> int:
        return self.sample_bytes * sum(signal.samples for signal in self.signals)

    @property
    def simulated(self) -> bool:
        return self.patient.split(" ")[0] == SIMULATED


def matches(path: Path) -> bool:
    """Whether the first eight bytes are those of EDF or BDF."""
    with path.open("rb") as opened:
        return opened.read(8) in (EDF_VERSION, BDF_VERSION)


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The EEG channels of an EDF, EDF+ or BDF file.

    Channels that are no electrode or have no voltage unit are left out. Raises RemitError for a
    file with less or more data than its header promises, a header that makes no sense, EEG
    channels of different rates, two channels of one electrode, and a file without EEG.
    """
    from remit.recordings.recording import Recording

    path = Path(row.path)
    header, cut = _whole_records(path, _read_header(path), options.allow_truncated)
    by_channel, notes = _eeg_signals(path, header, options.units)
    notes = [*cut, *notes]
    rates = {name: signal.samples / header.record_seconds for name, signal in by_channel.items()}
    if len(set(rates.values())) > 1:
        listed = some_of(f"{name} {rate:g} Hz" for name, rate in rates.items())
        raise RemitError(
            f"{path}: the EEG channels have different sampling rates ({listed}); expected one; "
            "export them at one rate."
        )
    segments, gaps = _segments(path, header, next(iter(by_channel.values())).samples, bool(cut))
    used = {signal.label for signal in by_channel.values()}
    rate = next(iter(rates.values()))
    stated = any(signal.unit for signal in by_channel.values())
    notes += stated_references([signal.label for signal in by_channel.values()])
    notes += unused(options, rate=rate, channel_names=True, units=stated)
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=_signal(path, header, list(by_channel.values()), options.units),
        sampling_rate=rate,
        channels=tuple(by_channel),
        segments=segments,
        prewindowed=False,
        simulated=header.simulated,
        source_sha256=sha256_of(path),
        left_out=tuple(
            signal.label
            for signal in header.signals
            if signal.label not in used and signal.label not in ANNOTATIONS
        ),
        notes=(*notes, *gaps),
    )


def _read_header(path: Path) -> _Header:
    with path.open("rb") as opened:
        fixed = opened.read(_FIXED)
        if len(fixed) < _FIXED:
            raise _cut_header(path, len(fixed))
        text = fixed.decode("latin-1")
        header_bytes = int(header_number(path, "header size", text[184:192]))
        count = int(header_number(path, "number of signals", text[252:256]))
        if count < 1 or header_bytes != _FIXED * (count + 1):
            raise RemitError(
                f"{path}: the header says {header_bytes} bytes for {count} signals; expected "
                f"{_FIXED * (count + 1)}, and at least one signal; copy or export it again."
            )
        rest = opened.read(_FIXED * count)
    if len(rest) < _FIXED * count:
        raise _cut_header(path, _FIXED + len(rest))
    columns: dict[str, list[str]] = {}
    start = 0
    for name, width in (
        ("label", 16),
        ("transducer", 80),
        ("unit", 8),
        ("physical minimum", 8),
        ("physical maximum", 8),
        ("digital minimum", 8),
        ("digital maximum", 8),
        ("filter", 80),
        ("samples per record", 8),
    ):
        cells = [rest[start + width * i : start + width * (i + 1)] for i in range(count)]
        columns[name] = [cell.decode("latin-1").rstrip("\0 ").strip() for cell in cells]
        start += width * count
    signals = tuple(
        _Signal(
            label=columns["label"][i],
            unit=columns["unit"][i],
            physical=(
                header_number(path, "physical minimum", columns["physical minimum"][i]),
                header_number(path, "physical maximum", columns["physical maximum"][i]),
            ),
            digital=(
                header_number(path, "digital minimum", columns["digital minimum"][i]),
                header_number(path, "digital maximum", columns["digital maximum"][i]),
            ),
            samples=int(
                header_number(path, "samples per record", columns["samples per record"][i])
            ),
        )
        for i in range(count)
    )
    return _Header(
        bdf=fixed.startswith(BDF_VERSION),
        patient=text[8:88].strip(),
        reserved=text[192:236].strip(),
        header_bytes=header_bytes,
        records=int(header_number(path, "number of data records", text[236:244])),
        record_seconds=header_number(path, "duration of a data record", text[244:252]),
        signals=signals,
    )


def _cut_header(path: Path, size: int) -> RemitError:
    return RemitError(
        f"{path}: ends inside its header ({size} bytes); expected a whole EDF or BDF file; copy it "
        "again."
    )


def _whole_records(path: Path, header: _Header, allow_truncated: bool) -> tuple[_Header, list[str]]:
    """The header with the number of records that are there, and a note where it promises more."""
    if any(signal.samples < 1 for signal in header.signals):
        raise RemitError(
            f"{path}: a signal has no samples in a data record; expected at least 1; export it "
            "again."
        )
    promised = f"{header.records} records, {header.records * header.record_seconds:g} s"
    data_bytes = path.stat().st_size - header.header_bytes
    there = data_bytes / header.record_bytes
    whole = max(0, int(there))
    found = f"{there:.2f} records ({there * header.record_seconds:.2f} s)"
    allowed = "or set cohorts.<name>.allow_truncated to read what is there"
    if header.records == 0 or whole == 0:
        raise RemitError(
            f"{path}: holds a header and no data; it promises {promised}; expected data; copy it "
            "again or leave it out."
        )
    missing = header.records * header.record_bytes - data_bytes
    if missing % header.record_bytes and 0 < missing < data_bytes * _A_FEW:
        raise RemitError(
            f"{path}: lacks {missing} bytes of {promised}, as after a conversion of line ends: it was "
            "changed as text on the way, and what follows each lost byte is out of place; expected "
            "its bytes as they were; copy it again in binary mode."
        )
    if header.records < 0 and not allow_truncated:
        raise RemitError(
            f"{path}: the header gives {header.records} data records, so the recording was never "
            f"closed; expected their number; export it again from the recording program, {allowed}."
        )
    if there < header.records and not allow_truncated:
        raise RemitError(
            f"{path}: is cut after {found}; expected {promised} as its header says; copy it again, "
            f"{allowed}."
        )
    if there > header.records > 0:
        extra = data_bytes - header.records * header.record_bytes
        raise RemitError(
            f"{path}: holds {extra} bytes more than its header's {promised}; "
            "expected none; it may have been changed as text on the way, copy it again in binary "
            "mode or export it again."
        )
    if header.record_seconds <= 0:
        raise RemitError(
            f"{path}: a data record lasts {header.record_seconds:g} s, as in a file of annotations "
            "only; expected EEG; choose the file with the signals."
        )
    if whole == header.records:
        return header, []
    note = (
        f"The file is cut: {whole} whole records are read of {header.records} promised."
        if header.records >= 0
        else f"The recording was never closed: the {whole} whole records that are there are read."
    )
    return replace(header, records=whole), [note]


def _eeg_signals(
    path: Path, header: _Header, stated: str | None
) -> tuple[dict[str, _Signal], list[str]]:
    """The signals to use by electrode, and what is to be said about others.

    `stated`: the unit of channels that the file gives none.
    """
    from remit.recordings.channels import electrodes

    labels = [signal.label for signal in header.signals]
    by_channel: dict[str, _Signal] = {}
    notes = []
    for signal, channel in zip(header.signals, electrodes(labels), strict=True):
        if channel is None or signal.label in ANNOTATIONS:
            continue
        if labels.count(signal.label) > 1:
            raise RemitError(
                f"{path}: two signals are called '{signal.label}'; expected each name once; rename "
                "or remove one."
            )
        if _microvolts(signal, stated) is None:
            notes.append(
                f"Channel {signal.label} is left out: its unit '{signal.unit}' is no voltage."
            )
            continue
        if channel in by_channel:
            raise RemitError(
                f"{path}: channels '{by_channel[channel].label}' and '{signal.label}' are both "
                f"{channel}; expected each electrode once; export without one of them."
            )
        for what, (low, high) in (("physical", signal.physical), ("digital", signal.digital)):
            if low == high or (what == "digital" and low > high):
                raise RemitError(
                    f"{path}: channel '{signal.label}' has the {what} range {low:g} to {high:g}; "
                    "expected a smaller and a larger number; export it again."
                )
        by_channel[channel] = signal
    if not by_channel:
        unstated = any(not signal.unit for signal in header.signals) and bool(notes)
        remedy = (
            "state units in the cohort sheet or cohorts.<name>.units, such as 'uV'"
            if unstated
            else "rename the channels, or correct their units"
        )
        raise RemitError(
            f"{path}: no EEG channel; it has {some_of(labels, 20)}; expected 10-10 names such as "
            f"'EEG Fp1' with a unit of voltage; {remedy}.{' ' + notes[0] if notes else ''}"
        )
    if any(not signal.unit for signal in by_channel.values()):
        notes.append(f"The file states no unit for some channels; '{stated}' is used.")
    return by_channel, notes


def _microvolts(signal: _Signal, stated: str | None) -> float | None:
    """Microvolts in one of a signal's own unit, else of the stated one; None for no voltage."""
    return 1.0 if signal.unit in MICROVOLT_BYTES else parse(signal.unit or stated or "")


def _segments(
    path: Path, header: _Header, samples: int, cut: bool
) -> tuple[tuple[Segment, ...], list[str]]:
    """Segments from the records' onsets (EDF+, BDF+); one segment where there are none.

    `samples` is the number of EEG samples in a record; `cut`: the file holds less than it promises,
    so that its bytes may be out of place.
    """
    from remit.recordings.recording import Segment

    total = header.records * samples
    onsets = _record_onsets(path, header)
    if onsets is None:
        if header.reserved.startswith(("EDF+D", "BDF+D")):
            raise RemitError(
                f"{path}: is discontinuous ({header.reserved[:5]}), but its records do not say "
                "when they begin; expected an onset in each; export it again."
            )
        told = any(signal.label in ANNOTATIONS for signal in header.signals)
        if told and (cut or header.reserved.startswith(("EDF+", "BDF+"))):
            raise RemitError(
                f"{path}: the records' onsets are not where they belong; expected one in each record "
                "of an EDF+ file, so its bytes are out of place; copy it again in binary mode, or "
                "export it again."
            )
        return (Segment(0, total, 0.0),), []
    half_a_sample = header.record_seconds / samples / 2
    starts = [0]
    notes = []
    for record in range(1, header.records):
        gap = onsets[record] - onsets[record - 1] - header.record_seconds
        if gap < -half_a_sample:
            raise RemitError(
                f"{path}: data record {record + 1} begins {-gap:g} s before the one before it "
                "ends; expected records one after another; export it again."
            )
        if gap > half_a_sample:
            end = onsets[record - 1] + header.record_seconds - onsets[0]
            notes.append(f"Gap of {gap:.3f} s after {end:.3f} s.")
            starts.append(record)
    drift = onsets[-1] - onsets[0] - (header.records - 1) * header.record_seconds
    if len(starts) == 1 and abs(drift) > half_a_sample:
        rate = samples * (header.records - 1) / (onsets[-1] - onsets[0])
        notes.append(
            f"The records' onsets drift by {drift:.3f} s ({rate:.6g} Hz by them); the header's rate "
            "is used."
        )
    stops = [*starts[1:], header.records]
    segments = tuple(
        Segment(start * samples, stop * samples, round(onsets[start] - onsets[0], 6))
        for start, stop in zip(starts, stops, strict=True)
    )
    return segments, notes


def _record_onsets(path: Path, header: _Header) -> list[float] | None:
    """When each data record begins in seconds, or None where the file does not say for each."""
    before = 0
    for signal in header.signals:
        if signal.label in ANNOTATIONS:
            break
        before += signal.samples
    else:
        return None
    onsets = []
    with path.open("rb") as opened:
        for record in range(header.records):
            place = header.header_bytes + record * header.record_bytes
            opened.seek(place + before * header.sample_bytes)
            found = _ONSET.match(opened.read(signal.samples * header.sample_bytes))
            if not found:
                return None
            onsets.append(float(found[1]))
    return onsets


def _signal(path: Path, header: _Header, signals: list[_Signal], stated: str | None) -> np.ndarray:
    """float32 microvolts [C, S] of these signals, through MNE."""
    import mne

    labels = [signal.label for signal in signals]
    samples = header.records * signals[0].samples
    opener = mne.io.read_raw_bdf if header.bdf else mne.io.read_raw_edf
    with guarded(path, "EDF or BDF"):
        # Latin-1 decodes any byte; the annotations' text is not used.
        raw = opener(path, include=labels, stim_channel=None, preload=False, encoding="latin1")
        rows = [raw.ch_names.index(label) for label in labels]
        scale_C = [(_microvolts(s, stated) or 1.0) / MNE_VOLTS.get(s.unit, 1.0) for s in signals]
        signal_CS = microvolts(raw, rows, scale_C, [(0, raw.n_times)])
    if raw.n_times != samples or len(raw.ch_names) != len(labels):
        raise RemitError(
            f"{path}: MNE gives {len(raw.ch_names)} channels of {raw.n_times} samples; expected "
            f"{len(labels)} of {samples} as the header says; export it again."
        )
    return signal_CS


READER = Reader(
    name="EDF/BDF",
    suffixes=(".edf", ".bdf"),
    matches=matches,
    read=read,
    expects="version '0' or 'BIOSEMI' in the first 8 bytes",
    takes=(
        "rate and unit of each channel from the header",
        "gaps of EDF+D and BDF+D from the records' onsets",
        "a unit that is missing from the sheet or the config",
        "channels that are no electrode or have no unit of voltage are left out",
    ),
    refuses=(
        "a file with less data than its header promises (unless `allow_truncated`)",
        "a file with more data than its header promises, as after a conversion of line endings",
        "a header that was never closed (unless `allow_truncated`), is cut or makes no sense",
        "a file of annotations only",
        "EEG channels of different rates",
        "two channels of one electrode, or of one name",
        "records that overlap in time",
    ),
)
