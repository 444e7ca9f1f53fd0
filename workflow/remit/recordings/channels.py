"""Channel names: from what a file calls a channel to the one spelling of the electrode.

The 10-05 system of MNE's standard montage says which electrodes there are and where they lie. Its
names and positions stand in `electrodes.tsv`, for MNE takes longer to make it than to read a short
recording; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from remit.errors import RemitError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

# The 10-20 system's names of 1958 and what the 10-10 system calls the same places.
OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
# Electrodes on the ears and mastoids: electrodes in their own right, and usual references.
EARS = {"a1", "a2", "m1", "m2"}
# What may stand behind a channel's name to say against what it was measured.
REFERENCES = {
    "ref",
    "reference",
    "le",
    "ar",
    "av",
    "avg",
    "average",
    "car",
    "cm",
    "org",
    "mast",
} | (EARS | {"a1a2", "a1+a2", "a12", "m1m2", "m1+m2", "cle", "linked"})
# What a configured reference may be besides electrodes.
COMMON_REFERENCES = ("average", "linked_mastoids")
# 'EEG' (EDF+), 'POL' (Nihon Kohden) and 'RAW' (Mind Monitor) say only that it is a signal.
_ELECTRODES = Path(__file__).with_name("electrodes.tsv")
_PREFIX = re.compile(r"^(?:eeg|pol|raw)[\s_:.-]+", re.IGNORECASE)
# One letter and a number: an electrode, or the socket of a device.
_SERIES = re.compile(r"^([A-Za-z])(\d+)(?=$|[\s_.:-])")
_OLD_TEMPORAL = {"t1", "t2"}  # of the 10-20 system's supplements, beside T3 to T6
_SUFFIX = re.compile(r"^([^\s_-]+)\s*[\s_-]\s*(\S+)$")


@lru_cache(maxsize=1)
def _montage() -> dict[str, tuple[float, float, float]]:
    """Position in metres of every electrode of the standard 10-05 montage, by its 10-10 name."""
    montage = {}
    for line in _ELECTRODES.read_text(encoding="utf-8").splitlines()[1:]:
        name, x, y, z = line.split("\t")
        montage[name] = (float(x), float(y), float(z))
    return montage


@lru_cache(maxsize=1)
def _by_lower_case() -> dict[str, str]:
    names = {name.lower(): name for name in _montage()}
    return names | {old.lower(): new for old, new in OLD_NAMES.items()}


def electrode_names() -> tuple[str, ...]:
    """Every electrode that is known, in 10-10 (10-05) spelling."""
    return tuple(_montage())


def canonical(name: str) -> str | None:
    """The 10-10 spelling of a file's channel name, or None where it is no EEG electrode.

    `EEG Fp1`, `FP1-Ref`, `Fp1-A2` and `fp1` are Fp1; `T3` is T7. A derivation between two
    electrodes (`Fp1-F7`, `A2-A1`) is none, nor are ECG, EOG, AUX, markers and anything unknown.
    """
    known = _by_lower_case()
    bare = _PREFIX.sub("", name.strip()).strip().rstrip(".").lower()
    if bare in known:
        return known[bare]
    parts = _SUFFIX.match(bare)
    if not parts:
        return None
    electrode, reference = parts.groups()
    if electrode in EARS and reference in EARS:
        return None  # the difference between the two references
    return known.get(electrode) if reference in REFERENCES else None


def electrodes(names: Sequence[str]) -> list[str | None]:
    """The 10-10 spelling of each of a file's channel names, or None where it is no EEG electrode.

    As `canonical` for each, but in the company of the others: of a series such as A1 to A32, or F1
    to F12, which goes on where the 10-10 system ends, none is an electrode. It counts the sockets
    of a device (BioSemi) or the contacts of an electrode in the brain.
    """
    found = [canonical(name) for name in names]
    series = [_SERIES.match(_PREFIX.sub("", name.strip())) for name in names]
    known = _by_lower_case()
    sockets = {
        match[1].lower()
        for match in series
        if match and match[0].lower() not in known and match[0].lower() not in _OLD_TEMPORAL
    }
    if sockets:  # then A1 and A2, or F1 to F8, are more of the same: numbered without a hole
        numbers: dict[str, set[int]] = {}
        for match in series:
            if match:
                numbers.setdefault(match[1].lower(), set()).add(int(match[2]))
        sockets |= {
            letter
            for letter, counted in numbers.items()
            if len(counted) > 1 and counted == set(range(1, len(counted) + 1))
        }
    return [
        None if match and match[1].lower() in sockets else name
        for name, match in zip(found, series, strict=True)
    ]


def electrode_positions(channels: Sequence[str]) -> np.ndarray:
    """Electrode coordinates, float64 [C, 3] in metres: to the right, to the front, up.

    They are those of the standard 10-05 montage itself, on the Colin 27 head. Raises RemitError
    for a name that is not in 10-10 spelling.
    """
    import numpy as np

    montage = _montage()
    for channel in channels:
        if channel not in montage:
            meant = canonical(channel)
            hint = f" Did you mean '{meant}'?" if meant else did_you_mean(channel, montage)
            raise RemitError(
                f"channel '{channel}' has no place on the head; expected an electrode of the "
                f"10-10 system, such as AF7 or T7; correct its name.{hint}"
            )
    return np.array([montage[channel] for channel in channels], dtype=np.float64).reshape(-1, 3)


def check_channels(
    channels: Sequence[str],
    reference: str | Sequence[str] | None,
    of: str = "channels",
) -> None:
    """Refuse configured channels and references that no recording can have.

    `reference` is 'average', 'linked_mastoids', an electrode, several, or None; `of` is the setting
    that names the channels. Raises RemitError
    with the nearest spelling for a name that is no electrode's 10-10 name.
    """
    named = [reference] if isinstance(reference, str) else list(reference or ())
    if isinstance(reference, str) and reference in COMMON_REFERENCES:
        named = []
    for setting, names in ((of, channels), ("preprocessing.reference", named)):
        others = COMMON_REFERENCES if isinstance(reference, str) and names is named else ()
        for name in names:
            if name in _montage():
                continue
            meant = canonical(name)
            near = f" Did you mean '{meant}'?" if meant else ""
            near = near or did_you_mean(name, others) or did_you_mean(name, _montage())
            also = f", or {' or '.join(others)}" if others else ""
            raise RemitError(
                f"{setting}: '{name}' is no electrode; expected names of the 10-10 system in its "
                f"spelling, such as AF7 or T7{also}; correct it in the configuration.{near}"
            )
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise RemitError(
                f"{setting}: {', '.join(twice)} stands there more than once; expected each "
                "electrode once; remove one."
            )
