"""The table of formats, docs/formats.md: each reader's own words, so that none is forgotten."""

from __future__ import annotations

from remit.recordings.registry import Reader, readers

_HEAD = """# Formats

Written by `remit config` from the readers in `workflow/remit/recordings/readers/`; do not edit. A file is
read rightly or refused, in one line that says what was found, what was expected and what to do. Adding
a format is adding a file there.

Every reader gives float32 µV, electrodes by their 10-10 names whatever the file calls them (`EEG FP1-Ref`
is Fp1, T3 is T7), the rate, and contiguous segments: nothing is joined across a gap or a stretch of missing
samples. Channels that are no electrode are left out and listed in the log and in the metadata of the
windows. What a file does not state (rate, channel names, unit) can be stated in the cohort sheet or under
`cohorts.<name>`.

| format | files | taken from it | refused |
|---|---|---|---|
"""
_TAIL = """
Of every format is refused: an empty file, a link to nothing, a beginning that is not the format's, a
recording without an electrode or a sample, two channels of one electrode, infinite values, an unknown
unit, and an amplitude that no EEG has (SD within a second of the median channel below 0.1 or above
1000 µV). A file with less data than it promises is refused unless `cohorts.<name>.allow_truncated` is set;
then what is there is read, and a note says so, where the format lets it be told.

In a BIDS dataset the sidecars `channels.tsv` (bad channels, types) and `eeg.json` (mains, rate) are read as
well, from the file's folder and the ones above it.
"""


def documentation() -> str:
    """docs/formats.md as text."""
    return _HEAD + "".join(_row(reader) for reader in readers()) + _TAIL


def _row(reader: Reader) -> str:
    cells = [
        reader.name,
        ", ".join(f"`{suffix}`" for suffix in reader.suffixes),
        "<br>".join(reader.takes),
        "<br>".join(reader.refuses),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
