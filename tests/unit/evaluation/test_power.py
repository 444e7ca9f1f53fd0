"""Power and smallest AUC: against every ordering counted, scipy, and the figures of the literature."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from remit.evaluation.power import (
    could_have_shown,
    smallest_auc,
    smallest_auc_of_fit,
    widening,
)


@pytest.mark.parametrize(("n1", "n0"), [(1, 3), (2, 2), (3, 3), (3, 7), (5, 6), (6, 4)])
def test_the_smallest_auc_is_that_of_all_orderings_counted(n1, n0):
    ranks = range(n1 + n0)
    won = np.array([sum(c) - n1 * (n1 - 1) / 2 for c in combinations(ranks, n1)])
    enough = [u for u in range(n1 * n0 + 1) if (won >= u).mean() <= 0.05]
    assert smallest_auc(n1, n0) == (pytest.approx(enough[0] / (n1 * n0)) if enough else None)


def test_seven_against_fourteen_as_simulated_in_the_research_notes():
    found = could_have_shown(7, 14, seed=0)
    pairs = round(found["fixed"]["smallest_auc"] * 98)
    # 71 of 98 pairs, 0.724, is the 95th percentile of the null: one more is needed.
    assert pairs == 72  # 0.735
    power = found["fixed"]["power"]
    assert [power[key] for key in ("0.65", "0.70", "0.80")] == pytest.approx(
        [0.28, 0.43, 0.77], abs=0.005
    )
    assert found["fit"] is None


def test_the_power_is_the_share_of_cohorts_that_scipy_calls_significant():
    rng = np.random.default_rng(1)
    ones, zeros = rng.normal(2**0.5 * 0.5244005, 1, (2000, 10)), rng.normal(0, 1, (2000, 26))
    p = mannwhitneyu(ones, zeros, alternative="greater", method="exact", axis=1).pvalue
    power = could_have_shown(10, 26, seed=3)["fixed"]["power"]["0.70"]
    assert power == pytest.approx((p <= 0.05).mean(), abs=4 * 0.5 / 2000**0.5)


def test_the_normal_approximation_continues_the_exact_null():
    # 100 against 100 is exact, 101 against 100 is not.
    assert smallest_auc(101, 100) == pytest.approx(smallest_auc(100, 100), abs=0.002)
    assert smallest_auc(101, 100) < smallest_auc(100, 100)


@pytest.mark.parametrize("permutations", [19, 99, 199, 1000])
def test_the_smallest_auc_of_a_fit_is_where_its_p_becomes_small_enough(permutations):
    null_S = np.random.default_rng(permutations).integers(0, 98, permutations) / 98  # with ties

    if permutations > 100:
        null_S[0] = np.nan  # undefined: counts against the found one

    def p(auc):
        return (1 + (~(null_S < auc)).sum()) / (1 + permutations)

    least = smallest_auc_of_fit(null_S)
    assert p(least) <= 0.05
    assert p(np.nextafter(least, 0)) > 0.05


def test_too_few_permutations_can_show_nothing_and_say_so():
    assert smallest_auc_of_fit(np.linspace(0, 0.9, 18)) is None
    found = could_have_shown(7, 14, seed=0, null_auc_S=np.linspace(0, 0.9, 18))["fit"]
    assert found["smallest_auc"] is None
    assert set(found["power"].values()) == {0.0}


def test_a_cohort_too_small_for_any_auc():
    found = could_have_shown(2, 2, seed=0)["fixed"]
    assert found["smallest_auc"] is None
    assert set(found["power"].values()) == {0.0}


def test_the_null_of_fixed_scores_is_not_widened_and_a_wider_one_costs_power():
    rng = np.random.default_rng(0)
    label = np.repeat([1, 0], [7, 14])
    u = [mannwhitneyu(x[label == 1], x[label == 0]).statistic for x in rng.random((2000, 21))]
    fixed = np.array(u) / 98
    assert widening(fixed, 7, 14) == pytest.approx(1.0, abs=0.05)
    assert widening(0.5 + 1.4 * (fixed - 0.5), 7, 14) == pytest.approx(1.4, abs=0.07)
    # A null that lies below 0.5 is wider, not better.
    assert widening(fixed - 0.2, 7, 14) > 1.5
    same = could_have_shown(7, 14, seed=0, null_auc_S=fixed)
    wider = could_have_shown(7, 14, seed=0, null_auc_S=0.5 + 1.4 * (fixed - 0.5))
    assert same["fit"]["power"]["0.80"] == pytest.approx(same["fixed"]["power"]["0.80"], abs=0.05)
    assert wider["fit"]["power"]["0.80"] < same["fit"]["power"]["0.80"] - 0.1


def test_no_one_in_a_class_is_refused():
    with pytest.raises(ValueError, match="at least 1 of each class"):
        could_have_shown(0, 5, seed=0)
