"""What the modules of nn refuse."""

from __future__ import annotations

import math
import re

import pytest
import torch

from remit.nn.checks import check_finite, check_lengths

AXES = ("sequence", "token", "feature")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_first_place_is_named(value: float, dtype: torch.dtype) -> None:
    tensor = torch.zeros(3, 4, 5, dtype=dtype)
    tensor[1, 2, 3] = tensor[2, 0, 0] = value
    message = f"the input holds {value} at sequence 1, token 2, feature 3 (2 of 60 values"
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        check_finite("the input", tensor, AXES)
    assert "\n" not in str(caught.value)


def test_infinities_of_both_signs_are_found() -> None:
    tensor = torch.tensor([[0.0, math.inf, -math.inf]])
    with pytest.raises(ValueError, match="inf at row 0, column 1"):
        check_finite("it", tensor, ("row", "column"))


def test_what_lies_beyond_a_length_is_no_ones_business() -> None:
    tensor = torch.zeros(3, 4, 5)
    tensor[0, 2:] = tensor[2] = math.nan
    check_finite("it", tensor, AXES, [2, 4, 0])
    with pytest.raises(ValueError, match=r"nan at sequence 0, token 2, feature 0 \(5 of 60"):
        check_finite("it", tensor, AXES, [3, 4, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_large_numbers_are_numbers(dtype: torch.dtype) -> None:
    largest = torch.full((2, 3, 4), torch.finfo(dtype).max, dtype=dtype)  # the sum overflows
    check_finite("it", largest, AXES)
    check_finite("it", torch.empty(0, 3, 4, dtype=dtype), AXES)


def test_lengths_come_back_as_numbers() -> None:
    assert check_lengths(None, 2, 5) is None
    assert check_lengths(torch.tensor([5, 5]), 2, 5) is None
    assert check_lengths(torch.tensor([0, 5]), 2, 5) == [0, 5]
    assert check_lengths(torch.tensor([3, 4], dtype=torch.int32), 2, 5) == [3, 4]


@pytest.mark.parametrize(
    ("lengths_B", "message"),
    [
        (torch.tensor([5, 6]), "the length of row 1 is 6; expected 0 to 5"),
        (torch.tensor([-1, 5]), "the length of row 0 is -1; expected 0 to 5"),
        (torch.tensor([5]), r"shape \(1,\); expected whole numbers of shape \(2,\)"),
        (torch.tensor([[5, 5]]), r"shape \(1, 2\)"),
        (torch.tensor([5.0, 4.0]), "lengths are torch.float32"),
        (torch.tensor([True, False]), "lengths are torch.bool"),
    ],
)
def test_lengths_that_do_not_fit_are_named(lengths_B: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_lengths(lengths_B, 2, 5)
