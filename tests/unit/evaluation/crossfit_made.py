"""Tables and folds for the tests of the nested fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from remit.evaluation.folds import Folds, make_folds


@dataclass
class Made:
    """A table; it keeps what it was asked."""

    participants: tuple[str, ...]
    row_NX: np.ndarray
    owner_N: np.ndarray
    name: str = "made"
    columns: list[str] | None = None
    asked: list[tuple[int, int, tuple[str, ...]]] = field(default_factory=list)

    def rows(self, repeat: int, fold: int, train_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = tuple(np.array(self.participants)[train_P].tolist())
        self.asked.append((repeat, fold, seen))
        return self.row_NX, self.owner_N


def options(**other: Any) -> SimpleNamespace:
    plain = {"inner_folds": 3, "strengths": [1.0, 10.0, 100.0], "select": None, "seed": 0}
    return SimpleNamespace(**(plain | other))


def people(number: int) -> tuple[str, ...]:
    return tuple(f"p{index:02d}" for index in range(number))


def folds_of(label_P: Any, folds: int = 4, repeats: int = 2, seed: int = 0) -> Folds:
    made = make_folds(
        dict(zip(people(len(label_P)), (int(label) for label in label_P), strict=True)),
        SimpleNamespace(folds=folds, repeats=repeats, seed=seed),
        dataset="8s_af7-af8",
        content_sha256="cd" * 32,
        simulated=True,
    )
    return Folds(**made, path="folds.json")


def table_of(row_NX: Any, windows: int = 1, **other: Any) -> Made:
    row_NX = np.asarray(row_NX, dtype=float)
    number = len(row_NX) // windows
    return Made(people(number), row_NX, np.repeat(np.arange(number), windows), **other)
