"""Small recordings as people have them: a folder of Muse CSV, a BIDS dataset, the .mat of a study.

The signal is a random walk drawn to the middle, of EEG's size (white noise is refused); it means nothing.
"""

import warnings

import numpy as np
from scipy.io import savemat
from scipy.signal import lfilter

RATE = 256.0
CHANNELS = ("TP9", "AF7", "AF8", "TP10")
OUTCOMES = ("yes", "no")


def walk_SC(seed, seconds, channels=4):
    """[samples, channels] in microvolts."""
    noise_SC = np.random.default_rng(seed).normal(0, 4, (int(seconds * RATE), channels))
    return lfilter([1], [1, -0.97], noise_SC, axis=0)


def participants(folder, names):
    rows = [
        f"{name}\t{30 + n}\t{'FM'[n // 2 % 2]}\t{OUTCOMES[n % 2]}" for n, name in enumerate(names)
    ]
    (folder / "participants.tsv").write_text(
        "\n".join(["participant_id\tage\tsex\toutcome", *rows]) + "\n"
    )


def muse_folder(folder, people=8, seconds=36):
    """``p01/rest.csv`` and so on, as muse-lsl writes them, with a participants.tsv."""
    names = [f"p{n + 1:02d}" for n in range(people)]
    for seed, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        rows = [
            f"{1_600_000_000 + n / RATE:.3f},"
            + ",".join(f"{value:.3f}" for value in row_C)
            + ",0.0"
            for n, row_C in enumerate(walk_SC(seed, seconds))
        ]
        (folder / name / "rest.csv").write_text(
            "\n".join([f"timestamps,{','.join(CHANNELS)},Right AUX", *rows]) + "\n"
        )
    participants(folder, names)


def bids_dataset(root, people=8, seconds=20):
    """By mne-bids: EDF, task rest."""
    import mne
    from mne_bids import BIDSPath, write_raw_bids

    for seed in range(people):
        info = mne.create_info(list(CHANNELS), RATE, "eeg")
        info["line_freq"] = 50
        raw = mne.io.RawArray(walk_SC(seed, seconds).T * 1e-6, info, verbose="error")
        path = BIDSPath(subject=f"{seed + 1:02d}", task="rest", datatype="eeg", root=root)
        with warnings.catch_warnings(action="ignore"):  # that the data were not in a file
            write_raw_bids(raw, path, format="EDF", allow_preload=True, verbose="error")
    participants(root, [f"sub-{seed + 1:02d}" for seed in range(people)])


def study_mat(file, people=4, windows=4):
    """Two cell arrays, one per outcome: so many participants in each, so many windows of 8 s."""

    def cells(first):
        made = np.empty((people, 2), dtype=object)
        for row in range(people):
            own = np.empty((1, windows), dtype=object)
            for n in range(windows):
                own[0, n] = walk_SC(100 * (first + row) + n, 8)
            made[row] = [own, first + row]
        return made

    savemat(file, {"EEG_windows_Remission": cells(100), "EEG_windows_Non_remission": cells(200)})
