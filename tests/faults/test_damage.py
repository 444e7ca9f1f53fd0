"""Checkpoints with a changed byte, and a disk that is full when the scheduler says stop."""

import errno
import os
import random
import signal

import pytest
import torch

from remit.errors import RemitError
from remit.training import checkpoint, state

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("kind", ["pretrained", "finetuned"])
def test_a_checkpoint_with_any_byte_changed_is_refused_or_gives_the_same(bench, tmp_path, kind):
    """Also where torch.load alone would take the changed tensor as it is."""
    backbone, _ = bench.pretrain(epochs=1)
    made = backbone if kind == "pretrained" else bench.finetune(backbone, epochs=1)[0]
    whole, state = made.read_bytes(), checkpoint.load(made, kind)["state_dict"]
    file = tmp_path / "damaged.pt"
    draw = random.Random(kind)
    taken_by_torch = 0
    for _ in range(400):
        place = draw.randrange(len(whole))
        other = whole[place] ^ draw.randrange(1, 256)
        file.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
        try:
            found = checkpoint.load(file, kind)["state_dict"]
        except RemitError as error:
            assert "\n" not in str(error)
            taken_by_torch += "does not have the SHA-256" in str(error)
        else:
            assert checkpoint.fingerprint(found) == checkpoint.fingerprint(state)
    assert taken_by_torch > 100  # so the test shows what it is for


def test_a_checkpoint_without_a_checksum_is_taken(bench, tmp_path):
    backbone, _ = bench.pretrain(epochs=1)
    content = torch.load(backbone, weights_only=True)
    del content["sha256"]
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    found = checkpoint.load(tmp_path / "old.pt", "pretrained")
    assert checkpoint.backbone_sha256(found) == checkpoint.backbone_sha256(content)


def test_a_checksum_of_nothing_and_weights_that_are_no_numbers_are_refused(bench, tmp_path):
    backbone, _ = bench.pretrain(epochs=1)
    content = torch.load(backbone, weights_only=True)
    torch.save({**content, "sha256": None}, tmp_path / "none.pt")
    with pytest.raises(RemitError, match="does not have the SHA-256"):
        checkpoint.load(tmp_path / "none.pt", "pretrained")
    del content["sha256"]
    content["state_dict"]["embed.weight"][0, 0] = float("nan")
    torch.save(content, tmp_path / "nan.pt")
    with pytest.raises(RemitError, match="the weights embed.weight hold NaN or infinity"):
        checkpoint.load(tmp_path / "nan.pt", "pretrained")


@pytest.mark.parametrize("saved_before", [True, False])
def test_sigterm_on_a_full_disk_says_that_training_ends(tmp_path, monkeypatch, saved_before):
    lines = []
    made = state.TrainingState(
        tmp_path / "x.pt", {}, {"m": torch.nn.Linear(2, 2)}, 60, lines.append
    )

    def full(file, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def steps():
        with made.until_saved():
            os.kill(os.getpid(), signal.SIGTERM)
            made.between_steps(lambda: ("epoch 1, step 2", {}))

    if saved_before:
        assert made.save("epoch 1", {})
    monkeypatch.setattr(state, "write_tensors", full)
    with pytest.raises(SystemExit) as left:
        steps()
    assert left.value.code == 128 + signal.SIGTERM
    (line,) = lines
    back = "go back to epoch 1" if saved_before else "start from the beginning"
    assert line.endswith(f"SIGTERM: training ends here, and the same command will {back}"), line
