"""Several ranks make the steps of one: the same to rounding, and to the bit where the passes are the same."""

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from remit.config import Execution
from remit.errors import RemitError
from remit.training import launcher
from remit.training.ranks import Ranks, count_ranks, threads_of
from tests.conftest import run
from tests.unit.training.conftest import NAME, on_cpu

# Sums of gradients in float32 in another order, over some twenty steps: 2e-7 was seen.
TOLERANCE = 1e-5


def pretrain_in(bench, output, ranks, *, env=None, execution=None, **options):
    """The command in so many ranks; the result's file is ``output``/mamba2….pt."""
    return run(
        *command(bench, output, ranks, execution=execution, **options), cwd=bench.folder, env=env
    )


def command(bench, output, ranks, *, execution=None, **options):
    given = {"device": "cpu", "mlflow": False, "training_threads": 1, "ranks": ranks}
    return [
        *(sys.executable, "-m", "remit.cli", "pretrain"),
        *("--settings", bench.pretrain_settings(**options).model_dump_json()),
        *("--primary", bench.primary, "--split", bench.split),
        *("--output", bench.folder / output / f"{NAME}.pt"),
        *("--execution", json.dumps({**given, **(execution or {})})),
    ]


def load(file):
    return torch.load(file, weights_only=True)


def worst(one, other):
    return max(
        float((one[key] - other[key]).abs().max() / one[key].abs().max().clamp(min=1e-12))
        for key in one
    )


@on_cpu
def test_one_rank_and_two_agree(trained):
    """19 sequences in batches of 3: shares of 2 and 1, and a last batch in which one has nothing."""
    bench, _ = trained
    options = {"batch_size": 3, "pooled_weight": 0.2, "latent_weight": 0.3}
    whole = load(bench.pretrain(bench.folder / "whole.pt", **options)[0])
    execution = Execution(device="cpu", mlflow=False, training_threads=1, micro_batch=2)
    pieces, _ = bench.pretrain(bench.folder / "pieces.pt", execution=execution, **options)
    done = pretrain_in(bench, "two", 2, **options)
    assert done.returncode == 0 and "; 2 ranks" in done.stdout, done.stdout
    two = load(bench.folder / "two" / f"{NAME}.pt")
    for part in ("state_dict", "decoder_state_dict"):
        assert worst(whole[part], two[part]) < TOLERANCE
        # The same passes, added in the same order: what ranks add is nothing but their sum.
        for key, value in load(pieces)[part].items():
            assert torch.equal(value, two[part][key]), key
    assert len(whole["history"]) == len(two["history"])
    for one, other in zip(whole["history"], two["history"], strict=True):
        assert one.keys() == other.keys()
        for key in one:
            # A spread over the tokens of a pass is a figure of the pass.
            if not key.endswith("latent_std"):
                assert one[key] == pytest.approx(other[key], rel=TOLERANCE), key
    for key in ("data", "settings", "best_epoch", "encoder", "device"):
        assert whole[key] == two[key], key
    # One voice: nothing is said twice, and torchrun says nothing at all.
    lines = done.stdout.splitlines()
    assert len(lines) == len(set(lines)) and all(line.startswith("[") for line in lines)


IN_TWO = """
import sys, torch
from remit.config import Execution
from remit.errors import RemitError
from remit.training.ranks import Ranks
ranks = Ranks.join(Execution(device="cpu", training_threads=2))
assert (ranks.size, torch.get_num_threads(), ranks.main) == (2, 1, ranks.rank == 0)
model = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.ones(2)) for n in ("both", "one", "none")})
model["both"].grad = torch.tensor([1.0, 2.0]) + ranks.rank
if ranks.rank == 1:
    model["one"].grad = torch.tensor([5.0, 6.0])
ranks.sum_gradients(model)
assert model["both"].grad.tolist() == [3.0, 5.0]
assert model["one"].grad.tolist() == [5.0, 6.0]
assert model["none"].grad is None
assert ranks.any(ranks.rank == 1, False) == (True, False)
found = ranks.sum_({"n": torch.tensor(3)} | ({"x": torch.tensor(0.1)} if ranks.rank else {}))
assert found["n"] == 6 and found["n"].dtype == torch.int64
assert found["x"].dtype == torch.float64 and found["x"] == torch.tensor(0.1).double()
ranks.check_same("nothing", "alike")
try:
    ranks.check_same("their number", str(ranks.rank))
except RemitError as error:
    assert "differ in their number" in str(error)
else:
    sys.exit("not noticed")
ranks.close()
print("fine")
"""


def test_ranks_started_by_hand_add_up(tmp_path):
    script = tmp_path / "in_two.py"
    script.write_text(IN_TWO)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    done = run(sys.executable, *torchrun, script, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count("fine") == 2, done.stdout


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_sequence_is_one_ranks(count, size):
    indices = np.random.default_rng(count).permutation(count)
    shares = [Ranks(rank, size).share(indices) for rank in range(size)]
    assert np.concatenate(shares).tolist() == indices.tolist()
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_alone_it_changes_nothing():
    alone = Ranks()
    grad = torch.tensor([1.0])
    model = torch.nn.ParameterDict({"a": torch.nn.Parameter(torch.ones(1))})
    model["a"].grad = grad
    alone.sum_gradients(model)
    assert model["a"].grad is grad and alone.any(True, False) == (True, False)
    values = {"a": torch.tensor(1.5)}
    assert alone.sum_(values)["a"] is values["a"]


def test_how_many_ranks(monkeypatch):
    assert count_ranks(Execution(device="cpu"), 16) == 1
    assert count_ranks(Execution(device="cpu", ranks=3), 16) == 3
    with pytest.raises(RemitError, match="execution.ranks is 3 and pretraining.batch_size 2"):
        count_ranks(Execution(device="cpu", ranks=3), 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert count_ranks(Execution(), 16) == 4
    assert count_ranks(Execution(), 3) == 3
    assert count_ranks(Execution(ranks=2), 16) == 2
    with pytest.raises(RemitError, match="execution.ranks is 5; found 4 visible CUDA devices"):
        count_ranks(Execution(ranks=5), 16)
    assert [threads_of(Execution(training_threads=5), ranks) for ranks in (1, 2, 9)] == [5, 2, 1]


@pytest.mark.parametrize(
    ("words", "codes", "asked", "code", "line"),
    [
        (["error", "lost"], {0: 1, 1: 70}, [], 70, "the error"),
        (["error"], {0: 130, 1: 130}, [2], 130, "the error"),
        (["lost"], {0: 1, 1: -9}, [], 137, "rank 1 of the training was killed by SIGKILL"),
        (["lost"], {0: 1, 1: -15}, [], 1, "the loss"),
        ([], {0: 143, 1: 143}, [], 143, None),
        ([], {0: 143, 1: 1}, [15], 143, None),
        ([], {1: 5}, [], 5, "rank 1 of the training ended with code 5"),
    ],
)
def test_the_first_reason_is_said(tmp_path, capsys, words, codes, asked, code, line):
    left = {"error": "70\nthe error", "lost": "1\nthe loss"}
    if asked == [2]:
        left["error"] = "130\nthe error"
    for word in words:
        (tmp_path / word).write_text(left[word])
    assert launcher._say_why(tmp_path, codes, asked) == code
    said = capsys.readouterr().err.splitlines()
    assert [each.startswith(f"remit: {line}") for each in said] == ([True] if line else [])
