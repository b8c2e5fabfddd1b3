"""Each question answered from constructed rows: agreeing, disagreeing, and neither."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from mrviz.paper import accuracy, assumptions, bound, indicators, kernels, loss
from mrviz.paper.settings import PROGRAMS, RULES

SIGNS = {"agrees": (1, 1, 1, 1), "disagrees": (-1, -1, -1, -1), "cannot tell": (1, -1, 1, -1)}


def by_id(found):
    return {answer.question: answer for answer in found}


@pytest.fixture(params=SIGNS)
def expected(request):
    return request.param


def test_question_1(expected):
    rows = [
        {
            "family": family,
            "kind": kind,
            "data": "digits",
            "draw": unit,
            "weight_seed": unit,
            "depth": depth,
            "smallest": 10.0 + sign * depth,
            "floor": 1e-9,
        }
        for family in ("dnn", "cnn")
        for kind in kernels.KINDS
        for unit, sign in enumerate(SIGNS[expected])
        for depth in (1, 2, 3, 4)
    ]
    found = kernels.answers({"kernels": rows})
    assert [a.verdict for a in found] == [expected] * 4
    assert all(a.runs == 16 for a in found)


def test_an_unresolved_value_of_question_1_counts_as_zero():
    row = {"smallest": 1e-12, "floor": 1e-9, "depth": 1}
    assert kernels.resolved(row) == 0.0
    assert kernels.means([row, {**row, "smallest": 4.0}]) == {1: 2.0}


def depth_rows(signs, sizes=(28,)):
    return [
        {
            "family": "dnn",
            "seed": seed,
            "input_size": size,
            "program": program,
            "depth": depth,
            "wide_lambda_min": 0.1 * depth,
            "own_lambda_min": 0.1 * depth,
            "source_accuracy": 0.5 + 0.05 * signs[seed] * depth,
            "train_loss": 2 - 0.1 * (signs[seed] if size == sizes[-1] else 1) * depth,
            "test_loss": 2 - 0.1 * signs[seed] * depth,
            "test_accuracy": 0.5 + 0.05 * signs[seed] * depth,
        }
        for seed in range(len(signs))
        for size in sizes
        for program in PROGRAMS
        for depth in (1, 2, 3)
    ]


def test_question_3(expected):
    found = loss.answers({"depth": depth_rows(SIGNS[expected])})
    assert len(found) == 3 and {a.verdict for a in found} == {expected}
    assert found[0].claim.startswith("FC (linear), source 28×28")


@pytest.mark.parametrize(("sign", "expected"), [(1, "cannot tell"), (-1, "disagrees")])
def test_whether_a_larger_source_mends_the_prompt(sign, expected):
    """With sign −1 the loss falls at 28 and rises at 112; with 1 it falls at both."""
    found = loss.answers({"depth": depth_rows((sign,) * 4, sizes=(28, 112))})
    assert len(found) == 7
    assert found[-1].verdict == expected and "112 instead of 28" in found[-1].claim
    assert found[-1].statistic == pytest.approx(0.0 if sign == 1 else 2.0)


def test_question_2(expected):
    behind = [
        {**row, "head": "dnn", "test_accuracy": row["test_accuracy"] + lead}
        for row in depth_rows(SIGNS[expected])
        if row["program"] != "linear_border"
        for lead in [SIGNS[expected][row["seed"]] * 0.2 * (row["program"] == "border")]
    ]
    found = accuracy.answers({"extractor": behind, "depth": depth_rows(SIGNS[expected])})
    assert len(found) == 8
    assert {a.verdict for a in found} == {expected}
    assert found[-1].claim.endswith("VP (border) beats FC (linear)")


def indicator_rows(signs, kinds=("image",)):
    generator = np.random.default_rng(0)
    return [
        {
            "source": "dnn",
            "trained_on": None,
            "seed": seed,
            "target": "digits",
            "kind": kind,
            "classes": 10,
            "program": program,
            "capacity": None,
            "T2_status": "holds",
            "test_accuracy": 0.1 * k + 0.02 * seed,
            **dict.fromkeys(indicators.INDICATORS, sign * (0.1 * k + 0.02 * seed)),
            "leep": float(generator.random()),
        }
        for seed, sign in enumerate(signs)
        for k, program in enumerate(("border", "linear", "overlay", "low_rank"))
        for kind in kinds
    ]


def test_question_4(expected):
    found = by_id(indicators.answers({"indicators": indicator_rows(SIGNS[expected])}))
    assert len(found) == 19
    assert {found[f"4a{k}"].verdict for k in (1, 2, 3, 4, 5)} == {expected}
    assert "4a6" not in found  # source accuracy does not differ within a source
    assert found["4a1"].runs == 16
    assert found["4b1"].verdict in (expected, "cannot tell")


def test_how_far_the_prediction_is_off_is_told():
    base = {"kind": "series", "classes": 2, "predicted_accuracy": 0.9}
    rows = [{**base, "test_accuracy": 0.5}, {**base, "test_accuracy": 0.9}]
    found = indicators.misses([*rows, {**base, "test_accuracy": None}])
    assert found == (
        "series: off by 20.0% on average, +20.0% with its sign, and 1 of 2 runs end within 2% of "
        "chance."
    )


def test_the_mean_of_correlations_inside_strata_is_that_of_scipy():
    generator = np.random.default_rng(1)
    rows = indicator_rows((1, 1, 1, 1), kinds=("image", "series"))
    x, y = generator.integers(0, 5, len(rows)) * 1.0, generator.random(len(rows))
    for strata in indicators.SCOPES.values():
        labels = [repr([row[name] for name in strata]) for row in rows]
        each = []
        for label in sorted(set(labels)):
            kept = [k for k, found in enumerate(labels) if found == label]
            if len(kept) >= 3 and len(set(x[kept])) > 1:
                each.append(spearmanr(x[kept], y[kept]).statistic)
        value, (low, high), sources = indicators.stratified(rows, x, y, strata)
        assert value == pytest.approx(np.mean(each))
        assert low <= value <= high and sources == 4


def test_the_interval_of_correlations_is_a_bootstrap_over_sources():
    """Against the same resampling, written out one resample at a time."""
    generator = np.random.default_rng(2)
    rows = indicator_rows((1, 1, 1, 1, 1))
    x, y = generator.random(len(rows)), generator.random(len(rows))
    sources = [[k for k, row in enumerate(rows) if row["seed"] == seed] for seed in range(5)]
    for strata in indicators.SCOPES.values():
        inside = "seed" in strata
        rng, draws = np.random.default_rng(RULES["seed"]), []
        for _ in range(RULES["resamples"]):
            index, labels = [], []
            for place, j in enumerate(rng.integers(0, 5, 5)):
                index += sources[j]
                labels += [
                    (place * inside, *(rows[k][name] for name in strata)) for k in sources[j]
                ]
            each = []
            for label in set(labels):
                kept = [k for k, own in zip(index, labels, strict=True) if own == label]
                if len(set(x[kept])) > 1:
                    each.append(spearman_of_ranks(x[kept], y[kept]))
            if each:
                draws.append(np.mean(each))
        _, interval, _ = indicators.stratified(rows, x, y, strata)
        assert interval == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-9)


def spearman_of_ranks(a, b):
    return np.corrcoef(rankdata(a), rankdata(b))[0, 1]


def test_an_unresolved_smallest_eigenvalue_is_zero_and_a_failed_run_has_none():
    assert indicators.value_of({"T2_value": None, "T2_status": "fails"}, "T2_value") == 0.0
    assert np.isnan(indicators.value_of({"T2_value": None}, "T2_value"))
    assert np.isnan(indicators.value_of({"leep": None, "T2_status": "holds"}, "leep"))


def source_row(seed, family="dnn", failing=0, undecided=0, distance=0.01, drift=0.01):
    return {
        "family": family,
        "trained_on": "digits",
        "seed": seed,
        "inputs": 16,
        "holding": 16 - failing - undecided,
        "failing": failing,
        "undecided": undecided,
        "distance": distance + 1e-4 * seed,
        "drift": drift + 1e-4 * seed,
    }


def width_rows(gap):
    return [
        {
            "family": "dnn",
            "trained_on": trained,
            "seed": seed,
            "program": program,
            "width": width,
            "gap": gap(width) + 1e-3 * seed,
        }
        for trained in (None, "digits")
        for seed in (1, 2, 3)
        for program in ("linear", "border")
        for width in (8, 32, 128)
    ]


@pytest.mark.parametrize(
    ("change", "gap", "expected"),
    [
        ({}, lambda w: 1 / w, "agrees"),
        ({"failing": 1, "distance": 0.9, "drift": 0.9}, lambda w: 0.9 + w / 1e4, "disagrees"),
    ],
)
def test_question_5(change, gap, expected):
    networks = [source_row(seed, **change) for seed in range(16)]
    control = [source_row(seed, assumptions.REGIME, distance=0.0) for seed in range(3)]
    tables = {"assumptions": [*networks, *control], "width": width_rows(gap)}
    found = by_id(assumptions.answers(tables))
    assert found.pop("5c").verdict == "agrees"
    assert {a.verdict for a in found.values()} == {expected}
    assert set(found) == {"5a", "5b", "5d1", "5d2", "5e1", "5e2", "5f"}


def test_question_5_cannot_tell_from_undecided_inputs_and_scattered_sources():
    networks = [source_row(seed, undecided=4, distance=0.19 * (seed % 2)) for seed in range(16)]
    tables = {"assumptions": networks, "width": width_rows(lambda w: 1 / w)}
    found = by_id(assumptions.answers(tables))
    assert found["5a"].verdict == found["5b"].verdict == "cannot tell"
    assert found["5c"].verdict == "cannot tell" and found["5c"].statistic is None


def bound_rows(value, risk, low=None, order=1):
    return [
        {
            "family": family,
            "trained_on": "digits",
            "target": "mnist-5k",
            "seed": seed,
            "program": program,
            "bound": value + 0.01 * k + 0.001 * seed,
            "bound_low": value if low is None else low,
            "bound_high": value + 0.1,
            "target_risk": risk + order * (0.01 * k + 0.001 * seed),
            "target_risk_error": 0.001,
        }
        for family in ("dnn", "cnn", "resnet")
        for seed in range(14)
        for k, program in enumerate(PROGRAMS)
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (bound_rows(1.0, 0.5), ("agrees", "agrees", "agrees")),
        (bound_rows(20.0, 0.5, order=-1), ("agrees", "disagrees", "disagrees")),
        (bound_rows(0.2, 0.6), ("disagrees", "agrees", "agrees")),
        (bound_rows(20.0, 0.5, low=0.1, order=0), ("cannot tell", "cannot tell", "cannot tell")),
    ],
)
def test_question_6(rows, expected):
    assert tuple(a.verdict for a in bound.answers({"bound": rows})) == expected


def test_how_loose_the_bound_is_is_told():
    assert "40 times" in bound.looseness(bound_rows(20.0, 0.5)[:1])
    assert bound.looseness([]) == "No runs."


def test_the_rules_are_those_of_the_conditions():
    assert RULES["risk"] == 2**0.5 and RULES["spectrum_gap"] == RULES["drift"] == 0.1
