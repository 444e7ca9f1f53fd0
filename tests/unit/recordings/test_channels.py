"""A file's name for a channel leads to one electrode, or to none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings_made import one_line

from remit.recordings.channels import (
    OLD_NAMES,
    canonical,
    electrode_names,
    electrode_positions,
    electrodes,
)


@pytest.mark.parametrize(
    ("name", "electrode"),
    [
        ("Fp1", "Fp1"),
        ("FP1", "Fp1"),
        ("EEG Fp1", "Fp1"),
        ("EEG Fp1-Ref", "Fp1"),
        ("EEG FP1-LE", "Fp1"),
        ("Fp1-A2", "Fp1"),
        ("C3 - M2", "C3"),
        ("Fpz", "Fpz"),
        ("FPZ", "Fpz"),
        ("Fc5.", "FC5"),
        ("RAW_TP9", "TP9"),
        ("POL O1", "O1"),
        ("EEG T3", "T7"),
        ("t4-ref", "T8"),
        ("T5", "P7"),
        ("T6-AVG", "P8"),
        ("A1", "A1"),
        ("EEG A2-A1", None),
        ("A2-M1", None),
        ("Fp1-F7", None),
        ("ECG ECG", None),
        ("ECG", None),
        ("EOG left", None),
        ("Right AUX", None),
        ("Marker0", None),
        ("Status", None),
        ("Accelerometer_X", None),
        ("timestamps", None),
        ("", None),
        ("EEG", None),
    ],
)
def test_names(name: str, electrode: str | None) -> None:
    assert canonical(name) == electrode


def test_the_table_is_mnes_montage() -> None:
    """`electrodes.tsv` holds MNE's standard montage, to the last digit."""
    import mne

    # MNE 1.13 gives the 'standard' montage a name that says whose head it is, and drops the old
    # name in 1.14; the positions are the same.
    there = {"colin27_1005", "standard_1005"} & set(mne.channels.get_builtin_montages())
    montage = mne.channels.make_standard_montage(min(there)).get_positions()["ch_pos"]
    expected = {name: place for name, place in montage.items() if name not in OLD_NAMES}
    assert electrode_names() == tuple(expected)
    np.testing.assert_array_equal(
        electrode_positions(electrode_names()), np.array(list(expected.values()))
    )


@given(
    st.sampled_from(electrode_names()),
    st.sampled_from(["", "EEG ", "eeg-", "POL ", "RAW_"]),
    st.sampled_from(["", "-Ref", "-LE", "-AVG", " REF", "."]),
    st.sampled_from([str, str.lower, str.upper]),
)
def test_prefix_suffix_and_case_do_not_matter(name, prefix, suffix, spelt) -> None:  # type: ignore[no-untyped-def]
    assert canonical(prefix + spelt(name) + suffix) == name


@given(st.text(max_size=20))
def test_any_text_gives_a_known_electrode_or_none(name: str) -> None:
    found = canonical(name)
    assert found is None or (found in electrode_names() and canonical(found) == found)


def test_positions_are_metres_on_a_head() -> None:
    left, right, front, top = electrode_positions(["TP9", "TP10", "Fpz", "Cz"])
    assert left[0] < -0.05 < 0.05 < right[0]
    assert front[1] > 0.05 and top[2] > 0.05
    every = electrode_positions(electrode_names())
    assert every.shape == (len(electrode_names()), 3)
    assert np.all(np.linalg.norm(every, axis=1) < 0.15)
    assert electrode_positions([]).shape == (0, 3)


@pytest.mark.parametrize(("name", "meant"), [("T3", "T7"), ("af7", "AF7"), ("AFF77h", "AFF7h")])
def test_a_name_without_a_place_gets_a_suggestion(name: str, meant: str) -> None:
    assert f"Did you mean '{meant}'?" in one_line(lambda: electrode_positions(["Cz", name]))


def test_a_series_that_counts_sockets_is_no_montage() -> None:
    biosemi = [f"{letter}{number}" for letter in "ABCD" for number in range(1, 33)]
    assert electrodes([*biosemi, "EXG1", "Status"]) == [None] * 130
    assert electrodes(["A1", "A2", "A3", "Cz"]) == [None, None, None, "Cz"]
    contacts = [f"{letter}{number}" for letter in "ABF" for number in range(1, 9)]
    assert electrodes([*contacts, "Cz", "M1"]) == [*[None] * 24, "Cz", "M1"]
    assert electrodes(["A1.", "A2.", "A3.", "A4.", "Cz."]) == [*[None] * 4, "Cz"]
    depth = [f"POL F{number}" for number in range(1, 13)]
    assert electrodes([*depth, "POL Fz"]) == [*[None] * 12, "Fz"]


def test_a_montage_is_no_series() -> None:
    clinic = ["Fp1", "F7", "F3", "T1", "T3", "T5", "C3-A2", "P3", "O1", "A1", "A2", "M1", "ECG"]
    expected = ["Fp1", "F7", "F3", None, "T7", "P7", "C3", "P3", "O1", "A1", "A2", "M1", None]
    assert electrodes(clinic) == expected
    assert electrodes(electrode_names()) == list(electrode_names())
    dense = ["F9", "F10", "P9", "P10", "T9", "T10", "C1", "C6", "I1", "I2"]
    assert electrodes(dense) == dense
