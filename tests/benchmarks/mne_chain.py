"""The same steps as `remit windows`, done with MNE: read, filter, resample, cut, write parquet.

python tests/benchmarks/mne_chain.py FILE OUT iir   # remit's Butterworth filters
python tests/benchmarks/mne_chain.py FILE OUT fir   # MNE's own defaults, 0.5 to 60 Hz
"""

from __future__ import annotations

import sys

import mne
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RATE, SECONDS = 256.0, 8.0


def read(file: str) -> mne.io.BaseRaw:
    if file.endswith(".csv"):
        import pandas as pd

        frame = pd.read_csv(file)
        names = ["TP9", "AF7", "AF8", "TP10"]
        info = mne.create_info(names, 256.0, "eeg")
        return mne.io.RawArray(frame[names].to_numpy().T * 1e-6, info, verbose="error")
    return mne.io.read_raw_edf(file, preload=True, verbose="error")


def main(file: str, out: str, kind: str) -> None:
    raw = read(file)
    if kind == "iir":
        for low, high, order in ((0.5, None, 2), (None, 60.0, 4)):
            design = {"order": order, "ftype": "butter", "output": "sos"}
            raw.filter(low, high, method="iir", iir_params=design, verbose="error")
    else:
        raw.filter(0.5, 60.0, verbose="error")
    raw.resample(RATE, verbose="error")
    epochs = mne.make_fixed_length_epochs(raw, SECONDS, preload=True, verbose="error")
    signal_WCS = epochs.get_data(copy=False).astype(np.float32) * 1e6
    samples = round(SECONDS * RATE)
    columns = {
        name.removeprefix("EEG "): pa.FixedSizeListArray.from_arrays(
            np.ascontiguousarray(signal_WCS[:, index]).ravel(), samples
        )
        for index, name in enumerate(raw.ch_names)
    }
    pq.write_table(pa.table(columns), out, compression="zstd", compression_level=3)


if __name__ == "__main__":
    main(*sys.argv[1:])
