"""FIF: the same microvolts as were saved, pauses as gaps, no part and no byte missing."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings_made import one_line, row_of

from remit.errors import RemitError
from remit.recordings.recording import Recording, Segment
from remit.recordings.registry import ReaderOptions, find_reader, read_recording

RNG = np.random.default_rng(0)
NAMES = ("Fp1", "T3", "VEOG", "C3")


def read(path: Path, **options: object) -> Recording:
    return read_recording(row_of(path), ReaderOptions(**options))  # type: ignore[arg-type]


def raw_of(
    channels: tuple[str, ...] = NAMES,
    samples: int = 3000,
    types: str | list[str] = "eeg",
    first_samp: int = 0,
    rate: float = 100.0,
) -> mne.io.RawArray:
    info = mne.create_info(list(channels), rate, types)
    signal_CS = (RNG.standard_normal((len(channels), samples)) * 3e-5).astype(np.float32)
    return mne.io.RawArray(signal_CS, info, first_samp=first_samp, verbose="error")


def saved(raw: Any, path: Path, **options: Any) -> Path:
    raw.save(path, verbose="error", overwrite=True, **({"buffer_size_sec": 1.0} | options))
    return path


def microvolts(raw: Any, names: tuple[str, ...]) -> np.ndarray:
    return (raw.get_data(picks=list(names)) * 1e6).astype(np.float32)


@pytest.mark.parametrize("name", ["made_raw.fif", "made_raw.fif.gz"])
@pytest.mark.parametrize("first_samp", [0, 1234])
def test_what_was_saved_is_read(tmp_path: Path, name: str, first_samp: int) -> None:
    raw = raw_of(samples=7000, first_samp=first_samp)
    raw.info["line_freq"] = 50.0
    raw.info["bads"] = ["T3", "VEOG"]
    recording = read(saved(raw, tmp_path / name))
    assert recording.channels == ("Fp1", "T7", "C3") and recording.left_out == ("VEOG",)
    assert recording.bad_channels == ("T7",) and recording.mains_hz == 50.0
    assert recording.sampling_rate == 100.0
    assert recording.segments == (Segment(0, 7000, 0.0),) and not recording.prewindowed
    assert recording.signal_CS.dtype == np.float32
    np.testing.assert_allclose(recording.signal_CS, microvolts(raw, ("Fp1", "T3", "C3")), rtol=1e-6)
    assert recording.notes == ()


@pytest.mark.parametrize("form", ["single", "double", "short", "int"])
def test_every_form_of_number(tmp_path: Path, form: str) -> None:
    raw = raw_of(samples=500)
    for channel in raw.info["chs"]:
        channel["cal"] = 1e-7
    file = saved(raw, tmp_path / "made_raw.fif", fmt=form)
    by_mne = mne.io.read_raw_fif(file, verbose="error")
    np.testing.assert_allclose(
        read(file).signal_CS, microvolts(by_mne, ("Fp1", "T3", "C3")), rtol=1e-6
    )


def test_real_values_survive(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "eegmat" / "sub-07" / "eeg" / "sub-07_task-arithmetic_eeg.edf"
    raw = mne.io.read_raw_edf(source, verbose="error")
    recording, of_edf = read(saved(raw, tmp_path / "made_raw.fif")), read(source)
    assert (recording.channels, recording.left_out) == (of_edf.channels, of_edf.left_out)
    np.testing.assert_allclose(recording.signal_CS, of_edf.signal_CS, rtol=1e-5, atol=1e-5)


def test_types_montage_and_projections(tmp_path: Path) -> None:
    raw = raw_of(("Fp1", "Fp2", "C3", "C4"), types=["eeg", "eog", "eeg", "eeg"])
    raw.set_montage("standard_1005", on_missing="ignore", verbose="error")
    raw.set_eeg_reference("average", projection=True, verbose="error")
    recording = read(saved(raw, tmp_path / "made_raw.fif"))
    assert recording.channels == ("Fp1", "C3", "C4") and recording.left_out == ("Fp2",)
    assert "Channel Fp2 is left out: the file calls it eog." in recording.notes
    assert any("not applied: Average EEG reference" in note for note in recording.notes)
    np.testing.assert_allclose(recording.signal_CS, microvolts(raw, ("Fp1", "C3", "C4")), rtol=1e-6)
    raw.apply_proj(verbose="error")
    recording = read(saved(raw, tmp_path / "made_raw.fif"))
    assert any("Projections had been applied: Average" in note for note in recording.notes)
    raw = raw_of()
    raw.set_eeg_reference(["C3"], verbose="error")
    recording = read(saved(raw, tmp_path / "made_raw.fif"))
    assert any("another reference" in note for note in recording.notes)


@pytest.mark.parametrize("first_samp", [0, 500])
@pytest.mark.parametrize("date", [None, 1.6e9])
@pytest.mark.parametrize("name", ["made_raw.fif", "made_raw.fif.gz"])
def test_a_pause_is_a_gap(tmp_path: Path, first_samp: int, date: float | None, name: str) -> None:
    raw = raw_of(first_samp=first_samp)
    raw.set_meas_date(date)
    start = 10.0 + (first_samp / 100 if date else 0)
    raw.set_annotations(
        mne.Annotations(
            [start, start + 10], [5.0, 2.0], ["BAD_ACQ_SKIP", "BAD_blink"], raw.info["meas_date"]
        )
    )
    recording = read(saved(raw, tmp_path / name))
    assert recording.segments == (Segment(0, 1000, 0.0), Segment(1000, 2500, 15.0))
    kept_CS = np.delete(microvolts(raw, ("Fp1", "T3", "C3")), np.s_[1000:1500], axis=1)
    np.testing.assert_allclose(recording.signal_CS, kept_CS, rtol=1e-6)
    assert "Gap of 5.000 s after 10.000 s of samples." in recording.notes
    assert "The file marks 2 s as bad (BAD_blink); they are kept." in recording.notes


def test_joined_recordings_stay_apart(tmp_path: Path) -> None:
    raw = mne.concatenate_raws([raw_of(samples=length) for length in (300, 500, 200)])
    recording = read(saved(raw, tmp_path / "made_raw.fif"))
    assert [segment.stop for segment in recording.segments] == [300, 800, 1000]
    assert sum("for how long the file does not say" in note for note in recording.notes) == 2
    raw = raw_of(samples=1000)
    raw.set_annotations(
        mne.Annotations(
            [2.995, 6.0, 7.995], [2.0, 0.0, 50.0], ["boundary", "New Segment/", "boundary"]
        ),
        verbose="error",
    )  # as they come from EEGLAB and BrainVision; MNE cuts the last one off
    recording = read(saved(raw, tmp_path / "made_raw.fif"))
    assert recording.segments == (
        Segment(0, 300, 0.0),
        Segment(300, 600, 5.0),
        Segment(600, 800, 8.0),
        Segment(800, 1000, 10.0),
    )


@given(
    skips=st.lists(st.tuples(st.integers(0, 28), st.integers(1, 6)), max_size=4),
    joins=st.lists(st.integers(1, 2999), max_size=4),
    first=st.sampled_from([0, 700]),
    date=st.sampled_from([None, 1.6e9]),
)
@settings(max_examples=30)
def test_segments_hold_what_was_recorded(
    tmp_path_factory: pytest.TempPathFactory,
    skips: list[tuple[int, int]],
    joins: list[int],
    first: int,
    date: float | None,
) -> None:
    # MNE's writer cannot end a file with a pause.
    skips = [(start, min(length, 29 - start)) for start, length in skips]
    raw = raw_of(("Cz",), first_samp=first)
    raw.set_meas_date(date)
    zero = first / 100 if date else 0.0
    raw.set_annotations(
        mne.Annotations(
            [zero + at for at in (*(start for start, _ in skips), *(at / 100 for at in joins))],
            [*(float(length) for _, length in skips), *(0.0 for _ in joins)],
            [*("BAD_ACQ_SKIP" for _ in skips), *("BAD boundary" for _ in joins)],
            raw.info["meas_date"],
        )
    )
    recording = read(saved(raw, tmp_path_factory.mktemp("made") / "made_raw.fif"))
    paused_S = np.zeros(3000, dtype=bool)
    for start, length in skips:
        paused_S[start * 100 : (start + length) * 100] = True
    signal_CS = microvolts(raw, ("Cz",))
    np.testing.assert_allclose(recording.signal_CS, signal_CS[:, ~paused_S], rtol=1e-6)
    first = int(np.argmin(paused_S))
    ends = {segment.start for segment in recording.segments}
    for segment in recording.segments:
        at = first + round(segment.onset_seconds * 100)
        length = segment.stop - segment.start
        assert not paused_S[at : at + length].any()
        np.testing.assert_allclose(
            recording.signal_CS[:, segment.start : segment.stop],
            signal_CS[:, at : at + length],
            rtol=1e-6,
        )
    # Without a date MNE moves annotations by a pause at the beginning, and drops them behind the end.
    moved = 0 if date else first
    for sample in joins:
        if not paused_S[sample] and sample < 3000 - moved:
            assert int((~paused_S[:sample]).sum()) in ends


@pytest.mark.parametrize("naming", ["neuromag", "bids"])
def test_split_recordings(tmp_path: Path, naming: str) -> None:
    raw = raw_of(samples=200_000, rate=500.0)
    file = tmp_path / ("made_raw.fif" if naming == "neuromag" else "made_eeg.fif")
    saved(raw, file, split_size="2MB", split_naming=naming)
    parts = sorted(tmp_path.iterdir())
    if naming == "bids":
        file = parts.pop(0)
    else:
        parts.remove(file)
    assert len(parts) >= 1
    companions = find_reader(file).companions
    assert companions is not None and companions(file) == parts
    recording = read(file)
    assert recording.segments == (Segment(0, 200_000, 0.0),)
    np.testing.assert_allclose(recording.signal_CS, microvolts(raw, ("Fp1", "T3", "C3")), rtol=1e-6)
    assert "later part of a split recording" in one_line(lambda: read(parts[0]))
    # The last part is cut, then missing.
    parts[-1].write_bytes(parts[-1].read_bytes()[:-40_000])
    assert "is cut" in one_line(lambda: read(file))
    shorter = read(file, allow_truncated=True)
    count = shorter.signal_CS.shape[1]
    assert 100_000 < count < 200_000
    np.testing.assert_array_equal(shorter.signal_CS, recording.signal_CS[:, :count])
    parts[-1].unlink()
    assert f"its part {parts[-1].name} is not there" in one_line(lambda: read(file))
    shorter = read(file, allow_truncated=True)
    assert 0 < shorter.signal_CS.shape[1] < count
    assert f"The further part {parts[-1].name} is missing; what is there is read." in shorter.notes
    # A part that names itself, or a file elsewhere, as the next one.
    whole = file.read_bytes()
    name = tag(118, 10, parts[0].name.encode())
    assert name in whole
    for other in (file.name, f"../{parts[0].name}", str(parts[0])):
        file.write_bytes(whole.replace(name, tag(118, 10, other.encode())))
        assert "as the next part" in one_line(lambda: read(file))
    file.write_bytes(gzip.compress(whole))
    packed = file.rename(tmp_path / "packed_raw.fif.gz")
    assert "split recording and packed" in one_line(lambda: read(packed))


def test_a_cut_file_is_refused_unless_allowed(tmp_path: Path) -> None:
    raw = raw_of()
    file = saved(raw, tmp_path / "made_raw.fif")
    whole = file.read_bytes()
    place = len(whole) - 12 * 1600 - 300  # in the data
    file.write_bytes(whole[:place])
    message = one_line(lambda: read(file))
    assert "is cut" in message and "bytes are missing after" in message
    assert "allow_truncated" in message
    recording = read(file, allow_truncated=True)
    samples = recording.signal_CS.shape[1]
    assert 1500 < samples < 1800 and samples % 100 == 0
    np.testing.assert_allclose(
        recording.signal_CS, microvolts(raw, ("Fp1", "T3", "C3"))[:, :samples], rtol=1e-6
    )
    assert any("The file is cut" in note for note in recording.notes)
    for size in (20, 500, 3000, len(whole) - 60, len(whole) - 17, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert "is cut" in one_line(lambda: read(file))
    file.write_bytes(whole[:500])
    assert "is cut" in one_line(lambda: read(file, allow_truncated=True))


def test_a_cut_packed_file_is_refused_unless_allowed(tmp_path: Path) -> None:
    raw = raw_of()
    file = saved(raw, tmp_path / "made_raw.fif.gz")
    whole = file.read_bytes()
    signal_CS = microvolts(raw, ("Fp1", "T3", "C3"))
    for size, fewest, most in ((len(whole) // 2, 1000, 2000), (len(whole) - 5, 3000, 3000)):
        file.write_bytes(whole[:size])
        message = one_line(lambda: read(file))
        assert "is cut, its packing ends after" in message and "allow_truncated" in message
        recording = read(file, allow_truncated=True)
        samples = recording.signal_CS.shape[1]
        assert fewest <= samples <= most
        np.testing.assert_allclose(recording.signal_CS, signal_CS[:, :samples], rtol=1e-6)
        assert any("The file is cut: its packing ends" in note for note in recording.notes)
    file.write_bytes(whole[:400])
    assert "is cut" in one_line(lambda: read(file, allow_truncated=True))
    file.write_bytes(whole[:30])
    one_line(lambda: read(file, allow_truncated=True))
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # in the checksum
    file.write_bytes(damaged)
    assert "cannot be unpacked" in one_line(lambda: read(file, allow_truncated=True))
    file.write_bytes(gzip.compress(gzip.decompress(whole)[:20_000]))
    assert "is cut" in one_line(lambda: read(file))
    assert 0 < read(file, allow_truncated=True).signal_CS.shape[1] < 3000


def test_epochs_and_averages_are_refused(tmp_path: Path) -> None:
    epochs = mne.make_fixed_length_epochs(raw_of(), 2.0, preload=True, verbose="error")
    epochs.save(tmp_path / "made-epo.fif", verbose="error")
    assert "holds epochs" in one_line(lambda: read(tmp_path / "made-epo.fif"))
    epochs.average().save(tmp_path / "made-ave.fif", verbose="error")
    assert "holds averages" in one_line(lambda: read(tmp_path / "made-ave.fif"))
    mne.io.write_info(tmp_path / "made-info.fif", raw_of().info)
    assert "holds no raw data" in one_line(lambda: read(tmp_path / "made-info.fif"))


def test_what_the_file_states_itself_is_used(tmp_path: Path) -> None:
    file = saved(raw_of(("Fp1-A1", "C3-A1")), tmp_path / "made_raw.fif")
    stated = {"sampling_rate": 128.0, "channel_names": ("O1", "O2"), "units": "mV"}
    recording = read(file, **stated)
    assert recording.channels == ("Fp1", "C3") and recording.sampling_rate == 100.0
    np.testing.assert_array_equal(recording.signal_CS, read(file).signal_CS)
    assert set(recording.notes) == {
        "The channel names state the reference A1.",
        "sampling_rate (128 Hz) is not used: the file states 100 Hz.",
        "channel_names are not used: the file states its own.",
        "units are not used: the file states its own.",
    }
    assert len(read(file, sampling_rate=100.0).notes) == 1


def test_complex_data_are_refused(tmp_path: Path) -> None:
    info = mne.create_info(["Cz"], 100.0, "eeg")
    raw = mne.io.RawArray(np.ones((1, 500)) * (1 + 1j), info, verbose="error")
    file = saved(raw, tmp_path / "made_raw.fif")
    assert "expected whole samples of real numbers" in one_line(lambda: read(file))


def test_units_with_a_multiplier_are_refused(tmp_path: Path) -> None:
    raw = raw_of()
    raw.info["chs"][1]["unit_mul"] = -6
    message = one_line(lambda: read(saved(raw, tmp_path / "made_raw.fif")))
    assert "'T3' is in 10^-6 V" in message
    raw = raw_of()
    raw.info["chs"][1]["unit"] = 112  # tesla
    recording = read(saved(raw, tmp_path / "made_raw.fif"))
    assert recording.channels == ("Fp1", "C3") and recording.left_out == ("T3", "VEOG")


def test_channels_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    message = one_line(lambda: read(saved(raw_of(("Cz", "EEG Cz")), tmp_path / "a_raw.fif")))
    assert "'Cz' and 'EEG Cz' are both Cz" in message
    raw = raw_of(("Cz", "E2"), types=["misc", "eeg"])
    message = one_line(lambda: read(saved(raw, tmp_path / "a_raw.fif")))
    assert "no EEG channel; it has Cz, E2" in message and "calls it misc" in message


def test_missing_values_end_a_segment(tmp_path: Path) -> None:
    raw = raw_of(("Cz", "Pz"))
    raw._data[0, 1000:1500] = np.nan
    recording = read(saved(raw, tmp_path / "made_raw.fif"))
    assert recording.segments == (Segment(0, 1000, 0.0), Segment(1000, 2500, 15.0))


def test_a_pause_between_parts_is_a_gap(tmp_path: Path) -> None:
    raw = raw_of(samples=200_000, rate=500.0)
    file = saved(raw, tmp_path / "made_raw.fif", split_size="2MB")
    part = tmp_path / "made_raw-1.fif"
    whole = part.read_bytes()
    buffer = whole.index(struct.pack(">iIi", 300, 4, 500 * 4 * 4))
    part.write_bytes(whole[:buffer] + tag(301, 3, struct.pack(">i", 7)) + whole[buffer:])
    recording = read(file)
    assert recording.signal_CS.shape == (3, 200_000)
    first, second = recording.segments
    assert second.onset_seconds == pytest.approx(first.stop / 500 + 7)


def tag(kind: int, form: int, content: bytes) -> bytes:
    return struct.pack(">iIii", kind, form, len(content), 0) + content


def test_damaged_tags_are_refused(tmp_path: Path) -> None:
    file = saved(raw_of(), tmp_path / "made_raw.fif")
    whole = file.read_bytes()
    buffer = whole.index(struct.pack(">iIi", 300, 4, 1600))
    skip = tag(303, 3, struct.pack(">i", 500))
    cases = {
        "makes no sense": whole[: buffer + 8] + b"\xff" * 4 + whole[buffer + 12 :],
        "1599 bytes of type 4": whole[: buffer + 8]
        + struct.pack(">i", 1599)
        + whole[buffer + 12 :],
        "tag 303": whole[:buffer] + skip + whole[buffer:],
        "next 16": whole[: buffer + 12] + struct.pack(">i", 16) + whole[buffer + 16 :],
    }
    for says, content in cases.items():
        file.write_bytes(content)
        assert says in one_line(lambda: read(file)), says
    file.write_bytes(b"\0" * 100)
    assert "its beginning is not" in one_line(lambda: read(file))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60)
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Whatever byte is wrong: a recording or one line, and never more samples than there are."""
    dice = np.random.default_rng(seed)
    file = saved(raw_of(samples=300), tmp_path_factory.mktemp("made") / "made_raw.fif")
    damaged = bytearray(file.read_bytes())
    for place in dice.integers(0, len(damaged) - 4800, 2):
        damaged[place] = dice.integers(0, 256)
    file.write_bytes(damaged)
    try:
        recording = read(file)
    except RemitError as error:
        assert "\n" not in str(error)
    else:
        assert recording.signal_CS.shape[1] <= 300
