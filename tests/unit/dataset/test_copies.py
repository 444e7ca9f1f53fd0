"""A copy of a recording under another name would stand on both sides of a split."""

import pytest

from remit.errors import RemitError
from tests.unit.training.conftest import make_dataset


def test_the_same_file_under_two_names_is_refused(tmp_path):
    people = {"p1": 0, "p2": 1, "p3": 1}
    with pytest.raises(
        RemitError, match="p1_r .participant p1. and p3_r .participant p3. are the same"
    ):
        make_dataset(tmp_path, people, sources={"p1": "x", "p3": "x"})
    make_dataset(tmp_path, people, sources={"p1": "", "p3": ""})
