"""Disk, memory and numbers that fail: said in one line, and nothing that was written is lost."""

import sys

import numpy as np
import pytest
import torch

from remit.config import Sequences
from remit.dataset import windows
from remit.dataset.sequences import Tokens, index_sequences, load_sequences
from remit.dataset.splits import ParticipantSplit, read_split
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError
from remit.nn.encoder import Encoder
from remit.tracking import Tracker
from remit.training import memory, pretrain, state
from remit.training.data import build_encoder, encoder_settings
from remit.training.runtime import seed_all
from tests.conftest import run
from tests.faults.conftest import assert_same, train
from tests.unit.training import conftest
from tests.unit.training.conftest import (
    CHANNELS,
    MODEL,
    NAME,
    QUIET,
    RATE,
    make_dataset,
    read_of,
)

pytestmark = pytest.mark.faults
CPU = torch.device("cpu")
EAGER = QUIET.model_copy(update={"save_minutes": 1e-9})


class Stop(Exception):
    """A crash in the middle of a training."""


def stopped_at(bench, output, epoch, **options):
    def log(line):
        if line.startswith(f"epoch {epoch}/"):
            raise Stop

    with pytest.raises(Stop):
        bench.pretrain(output, log=log, **options)


# The state ---------------------------------------------------------------------------------


def test_a_state_with_any_byte_changed_is_refused_or_gives_the_same(bench, tmp_path):
    """Also where torch.load alone would take the changed tensor as it is."""
    tensor = torch.nn.Linear(8, 8)
    made = state.TrainingState(tmp_path / "x.pt", {"a": 1}, {"m": tensor}, 60, lambda _: None)
    made.save("epoch 1", {"history": [1]})
    whole, weight = made.file.read_bytes(), tensor.weight.detach().clone()
    taken_by_torch = 0
    for place in range(0, len(whole), 11):
        made.file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        lines = []
        fresh = torch.nn.Linear(8, 8)
        before = fresh.weight.detach().clone()
        again = state.TrainingState(tmp_path / "x.pt", {"a": 1}, {"m": fresh}, 60, lines.append)
        if again.load() is None:
            assert torch.equal(fresh.weight, before) and "cannot be read" in lines[-1]
            try:
                found = torch.load(made.file, weights_only=True)["parts"]["m"]["weight"]
                taken_by_torch += not torch.equal(found, weight)
            except Exception:  # noqa: BLE001 - whatever it says, it refuses
                continue
        else:
            assert torch.equal(fresh.weight, weight)
    assert taken_by_torch > 10  # so the test shows what it is for


@pytest.mark.parametrize("length", [0, 1, 1000, -1])
def test_a_cut_state_is_said_and_it_starts_from_the_beginning(bench, tmp_path, length):
    file = tmp_path / "x.pt"
    stopped_at(bench, file, 2, execution=EAGER)
    (saved,) = (tmp_path / "x.state").glob("*.pt")
    saved.write_bytes(saved.read_bytes()[:length])
    _, lines = bench.pretrain(file)
    assert sum("cannot be read" in line for line in lines) == 1
    assert any(line.startswith("epoch 1/") for line in lines)
    whole, _ = bench.pretrain(tmp_path / "whole.pt")
    assert_same(file, whole)


def test_a_state_that_does_not_fit_the_model_leaves_it_untouched(tmp_path):
    """Loading copies what fits before it finds what does not."""
    small = torch.nn.Sequential(torch.nn.Linear(4, 4))
    made = state.TrainingState(tmp_path / "x.pt", {}, {"m": small}, 60, lambda _: None)
    made.save("epoch 1", {})
    large = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    before = [p.detach().clone() for p in large.parameters()]
    other = state.TrainingState(tmp_path / "x.pt", {}, {"m": large}, 60, lambda _: None)
    assert other.load() is None
    assert all(map(torch.equal, before, large.parameters()))


def test_the_state_of_other_settings_is_named_kept_and_continued_when_they_return(bench, tmp_path):
    file = tmp_path / "x.pt"
    stopped_at(bench, file, 2)
    stopped_at(bench, file, 1, weight_decay=0.2)
    assert len(list((tmp_path / "x.state").glob("*.pt"))) == 2
    lines = []
    bench.pretrain(file, log=lines.append)
    assert any("resuming after epoch 2" in line for line in lines)
    stopped_at(bench, file, 2)
    _, lines = bench.pretrain(file, batch_size=5, weight_decay=0.2)
    (line,) = [line for line in lines if "is not continued" in line]
    assert "settings.pretraining.batch_size was 4 and is now 5" in line and "\n" not in line
    assert any(line.startswith("epoch 1/") for line in lines)
    assert not (tmp_path / "x.state").exists()


def test_the_first_difference():
    first = state.first_difference
    assert first({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ("a.c", 2, 3)
    assert first({"a": 1}, {"a": 1, "b": None}) == ("b", "nothing", None)
    assert first({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}) is None


def test_saving_within_an_epoch_changes_nothing(bench, tmp_path):
    one, _ = bench.pretrain(tmp_path / "one.pt")
    two, _ = bench.pretrain(tmp_path / "two.pt", execution=EAGER)
    assert_same(one, two)


# The disk ----------------------------------------------------------------------------------


def test_a_state_that_does_not_fit_on_the_disk_stops_nothing(shared_bench):
    """A file may become as large as the result, which is smaller than the state."""
    folder = shared_bench.folder
    largest = 10 + (folder / "whole.pt").stat().st_size
    done = train(folder, "pretrain", "full.pt", largest_file=largest, save_minutes=60)
    warnings = [line for line in done.stdout.splitlines() if "could not be saved" in line]
    assert len(warnings) == 4 and "File too large" in warnings[0], done.stdout
    assert done.returncode == 0 and not list(folder.rglob(".full.*"))
    assert_same(folder / "full.pt", folder / "whole.pt")


def test_a_disk_that_fills_up_keeps_what_was_saved(bench, tmp_path, monkeypatch):
    file = tmp_path / "x.pt"
    whole, _ = bench.pretrain(tmp_path / "whole.pt")
    stopped_at(bench, file, 1)
    (saved,) = (tmp_path / "x.state").glob("*.pt")
    before = saved.read_bytes()
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr(state, "write_tensors", full)
        patch.setattr("remit.training.checkpoint.write_tensors", full)
        lines = []
        with pytest.raises(RemitError, match="x.pt: cannot be written .No space left"):
            bench.pretrain(file, log=lines.append)
    assert sum("would go back to epoch 1" in line for line in lines) == 2
    assert saved.read_bytes() == before and not file.exists()
    _, lines = bench.pretrain(file)
    assert any("resuming after epoch 1" in line for line in lines)
    assert_same(file, whole)


# Numbers -----------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_names_its_sequence_and_keeps_the_state(
    bench, tmp_path, monkeypatch
):
    file = tmp_path / "x.pt"
    stopped_at(bench, file, 1)
    (saved,) = (tmp_path / "x.state").glob("*.pt")
    before = saved.read_bytes()
    original = Tokens.batch

    def poisoned(self, indices, device, **named):
        samples, valid = original(self, indices, device, **named)
        for row, index in enumerate(indices):
            if index == 3 and len(self) > 8:  # of the training part
                samples[row] = float("nan")
        return samples, valid

    monkeypatch.setattr(Tokens, "batch", poisoned)
    with pytest.raises(RemitError) as caught:
        bench.pretrain(file)
    text = str(caught.value)
    data = open_dataset(bench.primary)
    people, _ = pretrain.keep_aside(read_split(bench.split).part("train"), 0.3, 0)
    index = index_sequences(data, people, bench.sequences)
    nth = int((index.participant_N[:3] == index.participant_N[3]).sum()) + 1
    chain = index.windows_NV[3]
    its = data.frame().iloc[index.row_W[chain[chain >= 0]]]
    person, recording = its["Participant"].iloc[0], its["recording"].iloc[0]
    first, last = (
        f"{row.parent_window_id}/{row.sub_window_id}" for _, row in its.iloc[[0, -1]].iterrows()
    )
    assert "the loss is not finite at epoch 2, step " in text
    assert (
        f"in made/{person} sequence {nth} (recording {recording}, windows {first} to {last});"
        in text
    )
    assert saved.read_bytes() == before


@pytest.mark.parametrize("options", [{"learning_rate": 1e20}, {"weight_decay": 1e30}])
def test_a_training_that_runs_away_ends_in_one_line(bench, options):
    """Where numbers overflow inside the model, with data that are sound."""
    with pytest.raises(
        RemitError, match=r"is not finite (at|after) epoch \d.*; lower .*learning_rate"
    ):
        bench.pretrain(**options)


def test_samples_that_are_no_numbers_are_refused_before_training(bench, monkeypatch):
    original = WindowsFile.read_into

    def read(self, out_WCS, row_W):
        original(self, out_WCS, row_W)
        out_WCS[0, 0, 0] = float("nan")

    monkeypatch.setattr(WindowsFile, "read_into", read)
    with pytest.raises(RemitError, match="not finite; expected numbers in every window"):
        bench.pretrain()


# Memory ------------------------------------------------------------------------------------


def reconstruction(bench, precision="float32", **options):
    sequences = load_sequences(
        open_dataset(bench.primary), read_split(bench.split).part("train"), bench.sequences
    )
    given = {"block_seconds": (0.5, 1.0), "spectrum_hz": (2.0, 12.0), **options}
    seed_all(5)
    shape = encoder_settings({**MODEL, "precision": precision}, sequences.samples_per_token, 64.0)
    encoder, _ = build_encoder(shape, CHANNELS)
    model = pretrain.Reconstruction(encoder, pretrain.Pretraining(**given), NAME, RATE)
    model.spectrum.fit(sequences.tokens_NS())
    return model.train(), sequences


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_micro_batches_give_the_gradient_of_the_whole_batch(bench, size):
    """Sequences of one and of two windows: their numbers of masked tokens differ."""
    model, sequences = reconstruction(bench, latent_weight=0.5, pooled_weight=0.5)
    indices = np.arange(7)
    assert len(set(sequences.valid_steps_N[indices])) > 1
    batch = model.masked_batch(read_of(sequences, indices), (0, 1), CPU)
    model(batch)[0].backward()
    whole = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    masked = batch.masked_BKC.sum()
    sums = pretrain.accumulate(model, [batch], masked, size)
    loss = model(batch)[0].detach()
    assert abs(float(sums["loss"] / masked) - float(loss)) < 1e-6
    assert {"waveform", "spectrum", "pooled", "latent"} <= set(sums)
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    found = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert whole.keys() == found.keys() and largest > 1e-3
    for key, gradient in whole.items():
        assert float((found[key] - gradient).abs().max()) <= 1e-6 * largest, key


def short_of_memory(monkeypatch, most, error):
    """Let the encoder run out of memory with more than ``most`` sequences and with gradient."""
    original = Encoder.forward
    sizes = []

    def forward(self, samples_BKCS, **named):
        if torch.is_grad_enabled():
            sizes.append(len(samples_BKCS))
            if len(samples_BKCS) > most:
                raise error
        return original(self, samples_BKCS, **named)

    monkeypatch.setattr(Encoder, "forward", forward)
    return sizes


ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__} {error}"[:30])
def test_memory_that_runs_out_halves_the_micro_batch_with_the_same_result(
    bench, tmp_path, monkeypatch, error
):
    whole, _ = bench.pretrain(tmp_path / "whole.pt")
    with monkeypatch.context() as patch:
        sizes = short_of_memory(patch, 1, error)
        halved, lines = bench.pretrain(tmp_path / "halved.pt")
    said = [line for line in lines if "ran out" in line]
    assert len(said) == 2 and sizes[:3] == [4, 2, 1] and set(sizes[3:]) == {1}
    assert "with 4 sequences × 16 tokens × width 16 at once" in said[0], said
    assert "going on with 2 at once" in said[0] and "\n" not in said[0]
    fixed, _ = bench.pretrain(
        tmp_path / "fixed.pt", execution=QUIET.model_copy(update={"micro_batch": 1})
    )
    assert_same(fixed, halved)
    one = torch.load(whole, weights_only=True)
    two = torch.load(halved, weights_only=True)
    for mine, theirs in zip(one["history"], two["history"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def test_memory_that_never_suffices_is_explained(bench, monkeypatch):
    short_of_memory(monkeypatch, 0, MemoryError("3 GB"))
    with pytest.raises(RemitError, match=r"with 1 sequences × 16 tokens .*\(3 GB\).*model.d_model"):
        bench.pretrain()
    fixed = QUIET.model_copy(update={"micro_batch": 2})
    with pytest.raises(RemitError, match=r"with 2 sequences × .* set execution.micro_batch to 'a"):
        bench.pretrain(execution=fixed)


def test_other_errors_are_no_lack_of_memory(bench, monkeypatch):
    assert not memory.ran_out(RuntimeError("shapes do not fit"))
    short_of_memory(monkeypatch, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        bench.pretrain()


def test_a_micro_batch_found_before_an_interruption_is_kept(bench, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        short_of_memory(patch, 2, MemoryError())
        whole, _ = bench.pretrain(tmp_path / "whole.pt")
        stopped_at(bench, tmp_path / "x.pt", 1)
    # There is memory enough now; the last digits are those of the smaller one all the same.
    file, lines = bench.pretrain(tmp_path / "x.pt")
    assert any("resuming after epoch 1" in line for line in lines)
    assert_same(file, whole)


def test_fine_tuning_halves_too(bench, tmp_path, monkeypatch):
    backbone, _ = bench.pretrain()
    options = {"freeze_backbone": False, "epochs": 2}
    whole, _ = bench.finetune(backbone, tmp_path / "whole.pt", **options)
    sizes = short_of_memory(monkeypatch, 1, MemoryError())
    halved, lines = bench.finetune(backbone, tmp_path / "halved.pt", **options)
    assert sum("ran out" in line for line in lines) >= 2 and sizes[-1] == 1
    one, two = (torch.load(f, weights_only=True)["state_dict"] for f in (whole, halved))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)


def test_memory_that_really_runs_out(shared_bench):
    """Under a limit of address space that a whole batch does not fit into."""
    code = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from remit.training.memory import MicroBatch\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "size = MicroBatch('auto', batch=16, tokens=4, width=4, device=torch.device('cpu'), log=print)\n"
        "print(len(size.within(lambda n: torch.ones(n, 2**23))))\n"  # 32 MiB for each
    )
    done = run(sys.executable, "-c", code, cwd=shared_bench.folder)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert 1 <= int(lines[-1]) <= 8 and "allocate memory" in lines[0], done.stdout


def test_a_command_that_runs_out_of_memory_says_so_in_one_line(monkeypatch, capsys):
    from remit import cli

    def doctor(_):
        raise MemoryError("Unable to allocate 74.5 GiB")

    monkeypatch.setattr(cli.tools, "_doctor", doctor)
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("remit: memory ran out; expected") and text.count("\n") == 1


# Input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "name", "value", "says"),
    [
        (conftest, "RATE", 64.0, "signal.sampling_rate is 64.0; expected 32.0 by the primary"),
        (windows, "UNITS", "mV", "more_primary.parquet: units is mV; expected µV; make the file"),
    ],
)
def test_a_corpus_of_another_rate_or_in_other_units_is_refused(
    bench, tmp_path, monkeypatch, of, name, value, says
):
    with monkeypatch.context() as patch:
        patch.setattr(of, name, value)
        corpus = make_dataset(tmp_path, {"x1": None, "x2": None}, cohort="more", seed=5)
    with pytest.raises(RemitError, match=says) as caught:
        bench.pretrain(corpora=[corpus])
    assert "\n" not in str(caught.value)


def test_nobody_or_one_left_to_pretrain_on_is_refused():
    options = pretrain.Pretraining()

    def split(**parts):
        return ParticipantSplit("d", "0", True, 0, {}, parts, {}, "split.json")

    with pytest.raises(RemitError, match="no participants for pretraining; found none in train"):
        pretrain._participants(split(a="val", b="test"), options)
    with pytest.raises(RemitError, match="has 1 participants; expected at least 2"):
        pretrain._participants(split(a="train", b="test"), options)


def test_tokens_that_do_not_divide_the_window_are_refused(bench):
    bench.sequences = Sequences(token_seconds=0.75, context_windows=2)
    with pytest.raises(RemitError, match=r"windows of 64 samples; expected a multiple of 24"):
        bench.pretrain()


def test_ended_while_it_waits_for_mlflow_a_training_can_go_on(bench, tmp_path, monkeypatch):
    """Snakemake deletes the result of the job that was ended; the state makes it again, in no time."""

    def pretraining(name):
        return bench.pretrain(tmp_path / name, execution=EAGER)

    def finetuning(name):
        return bench.finetune(
            tmp_path / "whole.pt", tmp_path / name, execution=EAGER, freeze_backbone=False, epochs=2
        )

    def told(*_):
        raise SystemExit(143)

    for make, name in ((pretraining, "whole.pt"), (finetuning, "tuned.pt")):
        make(name)
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(Tracker, "finish", told)
            make("again.pt")
        (tmp_path / "again.pt").unlink()
        _, lines = make("again.pt")
        assert any(line.startswith("resuming after") for line in lines), lines
        assert_same(tmp_path / name, tmp_path / "again.pt")
        assert not (tmp_path / "again.state").exists()
