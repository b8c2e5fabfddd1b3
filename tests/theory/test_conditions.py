"""Transfer conditions: each one made to hold, to fail and to stay undecided."""

import json

import pytest
import torch
from torch import nn

import mrviz
from mrviz import mappings
from mrviz.programs import Border, Linear, Overlay, linear_border
from mrviz.theory import BoundConstants, source_factors
from mrviz.theory.drift import kernel_drift
from mrviz.theory.prediction import predict_training
from tests.ntk.common import conv_net, dense_net, uniform

CANVAS, IMAGE = (1, 6, 6), (1, 4, 4)
IDS = [f"T{k}" for k in range(1, 14)]


def make(program=None, net=None, dtype=torch.float64, outputs=3, **source):
    net = (net or dense_net(CANVAS, 3, 1, width=20)).to(dtype)
    return mrviz.ReprogrammedModel(
        mrviz.SourceModel(net, CANVAS, **source),
        program or Linear(CANVAS, IMAGE),
        mappings.Identity(outputs),
    )


def task(x=None, y=None, n=4):
    x = uniform(n, *IMAGE) if x is None else x
    y = [k % 3 for k in range(len(x))] if y is None else y
    return mrviz.Target(x, y, x, y)


def conditions(model, target, reduce="full", **options):
    n = options.pop("n", len(target.x_train))
    gram = mrviz.ntk_gram(model, target.x_train[:n], reduce=reduce, **options)
    return mrviz.transfer_conditions(model, target, gram=gram, **options)


# T1


def test_capacity_holds_and_fails():
    """The frame of 6×6 around 4×4 has 20 pixels: enough for 6 samples × 3 outputs, not for 7."""
    model, target = make(Border(CANVAS, IMAGE)), task(n=7)
    six = mrviz.transfer_conditions(model, target, n=6)["T1"]
    seven = mrviz.transfer_conditions(model, target, n=7)["T1"]
    assert (six.value, six.threshold, six.status) == (20, 18, "holds")
    assert (seven.value, seven.threshold, seven.status) == (20, 21, "fails")


def test_capacity_holds_at_equality():
    model = make(Border(CANVAS, IMAGE), dense_net(CANVAS, 4), outputs=4)
    found = mrviz.transfer_conditions(model, task(n=5, y=[0, 1, 2, 3, 0]))["T1"]
    assert found.value == found.threshold == 20 and found.status == "holds"


@pytest.mark.parametrize("reduce", ["trace", "sum", 0])
def test_capacity_counts_all_residuals_whatever_the_reduction(reduce):
    assert conditions(make(), task(n=4), reduce)["T1"].threshold == 12


# T2


def test_trainability_holds():
    model, target = make(), task()
    found = mrviz.transfer_conditions(model, target)["T2"]
    eigenvalues = torch.linalg.eigvalsh(mrviz.ntk_gram(model, target.x_train).matrix)
    assert found.status == "holds"
    assert found.value == pytest.approx(float(eigenvalues[0]), rel=1e-9)
    assert found.threshold == pytest.approx(12 * 2.0**-53 * float(eigenvalues[-1]), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduce", ["full", "trace"])
def test_trainability_fails_for_want_of_parameters_in_any_precision(dtype, reduce):
    model = make(Border(CANVAS, IMAGE), dtype=dtype)
    found = conditions(model, task(n=9), reduce)["T2"]
    assert found.status == "fails" and found.value is None
    assert "at least 7 of 27 eigenvalues are exactly zero" in found.why


def twins():
    x = uniform(4, *IMAGE)
    x[3] = x[0]
    return task(x, [0, 1, 2, 0])


def test_trainability_fails_for_twins_in_double_precision():
    found = mrviz.transfer_conditions(make(), twins())["T2"]
    assert found.status == "fails" and found.value is None
    assert "3 of 12 eigenvalues are not told from zero even in double" in found.why


def test_trainability_is_undecided_for_twins_in_single_precision():
    model = make(dtype=torch.float32)
    found = mrviz.transfer_conditions(model, twins())["T2"]
    assert found.status == "undecided" and found.value is None
    assert "repeat in float64 to decide" in found.why
    decided = mrviz.transfer_conditions(model, twins(), dtype=torch.float64)["T2"]
    assert decided.status == "fails"


@pytest.mark.parametrize("reduce", ["trace", "sum", 0, 2])
def test_reduced_kernels_never_establish_trainability(reduce):
    found = conditions(make(), task(), reduce)["T2"]
    assert found.status == "undecided" and "choose the full kernel" in found.why
    refuted = conditions(make(), twins(), reduce)["T2"]
    assert refuted.status == "fails"


# T3


def test_schur_bound_holds_and_is_below_the_smallest_eigenvalue():
    for program in (Linear(CANVAS, IMAGE), linear_border(CANVAS, IMAGE)):
        found = mrviz.transfer_conditions(make(program), task())
        assert found["T3"].status == "holds"
        assert 0 < found["T3"].value <= found["T2"].value * (1 + 1e-9)
        assert found["T3"].threshold == found["T2"].threshold


def test_schur_bound_fails_where_residuals_outnumber_source_inputs():
    """Γ has rank d_S = 36 at most: 13 samples × 3 outputs are too many, Θ may still be full."""
    found = mrviz.transfer_conditions(make(net=conv_net(CANVAS, 3, 1)), task(n=13))
    assert found["T3"].status == "fails" and found["T3"].value is None
    assert found["T2"].status == "holds"


def test_schur_bound_is_undecided_in_single_precision():
    model = make(net=conv_net(CANVAS, 3, 1), dtype=torch.float32)
    found = mrviz.transfer_conditions(model, task(n=13))["T3"]
    assert found.status == "undecided" and "repeat in float64" in found.why


@pytest.mark.parametrize("program", [Border(CANVAS, IMAGE), Overlay(CANVAS, IMAGE)])
def test_schur_bound_does_not_apply_to_prompts(program):
    found = mrviz.transfer_conditions(make(program), task())["T3"]
    assert found.status == "undecided" and found.value is None
    assert "applies to linear programs only" in found.why


def test_schur_bound_is_about_the_full_kernel():
    found = conditions(make(), task(), "trace")["T3"]
    assert found.status == "undecided" and "choose the full kernel" in found.why


# T5


def residual_task(model, direction, n=4):
    """A regression target whose residual at the start is the direction given."""
    x = uniform(n, *IMAGE).float()
    y = model.predict(x) + 5 * direction.view(n, -1)
    return mrviz.Target(x, y.float(), x, y.float())


@pytest.mark.parametrize("program", [Linear, Border])
def test_alignment_follows_the_residual(program):
    model = make(program(CANVAS, IMAGE))
    spec = mrviz.spectrum(mrviz.ntk_gram(model, uniform(4, *IMAGE).float()))
    vectors = spec.eigenvectors
    statuses = {}
    for name, direction in (
        ("top", vectors[:, 0]),
        ("bottom", vectors[:, -1]),
        ("chance", vectors.sum(1) / 12**0.5),
    ):
        found = mrviz.transfer_conditions(model, residual_task(model, direction))["T5"]
        statuses[name] = found.status
        norm = float(spec.eigenvalues.norm())
        expected = {
            "top": spec.largest / norm,
            "bottom": max(spec.smallest, 0) / norm,
            "chance": spec.trace / 12 / norm,
        }[name]
        assert found.value == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert found.threshold == pytest.approx(spec.trace / 12 / norm, rel=1e-4)
    assert statuses == {"top": "holds", "bottom": "undecided", "chance": "undecided"}


class Square(nn.Module):
    """36 outputs: each looks at a pixel of its own."""

    def forward(self, u):
        return u.flatten(1) + u.flatten(1).square()


def test_alignment_fails_in_the_null_space_of_many_residuals():
    """108 residuals, so that a random direction lies close to the mean; 36 eigenvalues."""
    model = make(Overlay(CANVAS, CANVAS), Square(), outputs=36)
    x = uniform(3, *CANVAS).float()
    vectors = mrviz.spectrum(mrviz.ntk_gram(model, x)).eigenvectors
    for k, status in ((0, "holds"), (-1, "fails")):
        y = (model.predict(x) + 5 * vectors[:, k].view(3, -1)).float()
        found = mrviz.transfer_conditions(model, mrviz.Target(x, y, x, y))["T5"]
        assert found.status == status


# T8


class Reader(nn.Module):
    """Outputs the first ten pixels: classifies one-hot images perfectly."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(5.0))

    def forward(self, u):
        return self.gain * u.flatten(1)[:, :10]


def own_task(shift, n=100):
    x = torch.zeros(n, 36)
    y = torch.arange(n) % 10
    x[torch.arange(n), y] = 1
    if shift == "random":
        labels = torch.randint(0, 10, (n,), generator=torch.Generator().manual_seed(0))
    else:
        labels = (y + shift) % 10
    return x.view(n, *CANVAS), labels


@pytest.mark.parametrize(
    ("shift", "status", "accuracy"),
    [(0, "holds", 1.0), (1, "fails", 0.0), ("random", "undecided", None)],
)
def test_source_strength(shift, status, accuracy):
    model = make(net=Reader(), dtype=torch.float32, test_data=own_task(shift))
    found = mrviz.transfer_conditions(model, task())["T8"]
    assert found.status == status and found.threshold == 0.1
    if accuracy is None:
        assert 0.03 < found.value < 0.2
    else:
        assert found.value == accuracy
    assert "100 held-out source samples" in found.why


def test_source_risk_by_hand():
    source = make(net=Reader(), test_data=own_task(0, 10)).source
    strength = mrviz.theory.source_strength(source, batch_size=3)
    weights = torch.tensor([5.0] + [0.0] * 9).double().softmax(0)
    weights[0] -= 1
    assert strength.risk == pytest.approx(float(weights.norm()))
    low, high = strength.interval
    assert (strength.n, strength.accuracy) == (10, 1.0)
    z2 = 1.959963984540054**2
    assert low == pytest.approx(10 / (10 + z2), rel=1e-6) and high == pytest.approx(1)


def test_source_strength_follows_the_precision_of_the_source():
    model = make(net=Reader(), dtype=torch.float32, test_data=own_task(0)).double()
    assert mrviz.transfer_conditions(model, task())["T8"].status == "holds"


def test_source_without_test_data_names_the_way_out():
    found = mrviz.transfer_conditions(make(name="mine"), task())["T8"]
    assert found.status == "undecided" and found.value is None
    assert "mine" in found.why and "test_data=(x, y) to SourceModel" in found.why
    assert mrviz.theory.source_strength(make().source) is None


def test_source_strength_does_not_see_dropout():
    net = nn.Sequential(nn.Dropout(0.9), Reader())
    model = make(net=net, dtype=torch.float32, test_data=own_task(0))
    model.train()
    assert mrviz.transfer_conditions(model, task())["T8"].value == 1.0
    assert net[0].training


def test_source_strength_on_data_of_ones_own():
    model = make(net=Reader(), dtype=torch.float32)
    assert mrviz.theory.source_strength(model.source, data=own_task(0)).accuracy == 1.0
    with pytest.raises(mrviz.InputError, match=r"source_data must be \(x, y\)"):
        mrviz.theory.source_strength(model.source, data=3)
    with pytest.raises(mrviz.InputError, match=r"source_data\[1\] must hold labels"):
        mrviz.theory.source_strength(model.source, data=(own_task(0)[0], torch.arange(100)))


# What has to be asked for


def test_what_was_not_asked_for_says_what_to_pass():
    found = mrviz.transfer_conditions(make(), task())
    for key, way in {
        "T7": "predict=True",
        "T8": "source_data=(x, y)",
        "T9": "source_data=(x, y)",
        "T10": "source_data=(x, y)",
        "T12": "drift=",
        "T13": "constants=",
    }.items():
        assert found[key].status == "undecided" and way in found[key].why
    assert all(found[key].value is None for key in ("T7", "T8", "T9", "T10", "T12"))
    assert found["T13"].value > 0 and found["T13"].threshold is None


def test_everything_asked_for():
    model, target = make(net=Reader(), dtype=torch.float32), task()
    before = mrviz.ntk_gram(model, target.x_train, dtype=torch.float64)
    found = mrviz.transfer_conditions(
        model,
        target,
        gram=before,
        source_data=own_task(0, 30),
        predict={"loss": "squared", "steps": 7},
        drift=kernel_drift(before, before),
        constants=BoundConstants(rho=0.0, B=1.0, T=1.0, L=0.0, Gamma=1.0),
        progress=False,
    )
    assert all(c.value is not None for c in found if c.id not in ("T3",))
    assert found["T7"].details["steps"] == 7 and found["T7"].details["loss"] == "squared"
    assert found["T8"].value == 1.0 and "empirical λ_min[K_S]" in found["T8"].why
    assert (found["T12"].value, found["T12"].status) == (0.0, "holds")
    assert (found["T13"].value, found["T13"].status) == (0.0, "holds")
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_prediction_and_factors_that_are_there_are_used():
    model, target = make(net=Reader(), dtype=torch.float32), task()
    prediction = predict_training(model, target, steps=5, progress=False)
    factors = source_factors(model, target.x_train, own_task(0, 30), samples=0, progress=False)
    found = mrviz.transfer_conditions(
        model, target, n=3, predict=prediction, factors=factors, progress=False
    )
    assert found["T7"].value == prediction.accuracy
    assert found["T9"].status == "undecided" and "samples=16" in found["T9"].why
    assert "λ_min[K_S]" in found["T8"].why and found["T10"].value is None


@pytest.mark.parametrize("reduce", ["trace", 0])
def test_predictions_with_reduced_grams(reduce):
    """A class kernel cannot be used for the prediction, so the full one is computed for it."""
    model, target = make(), task()
    gram = mrviz.ntk_gram(model, target.x_train, reduce=reduce)
    found = mrviz.transfer_conditions(model, target, gram=gram, predict=True, progress=False)
    assert found["T7"].value is not None
    assert ("acts on every output alike" in found["T7"].why) == (reduce == "trace")


def test_no_prediction_without_it_being_asked_for(monkeypatch):
    for name in ("predict_training", "source_factors", "distribution_bound"):
        monkeypatch.setattr(f"mrviz.theory.transfer.{name}", None)
    assert len(mrviz.transfer_conditions(make(), task())) == 13


# The call and its result


def test_conditions_behave_like_a_collection():
    found = mrviz.transfer_conditions(make(), task())
    assert [c.id for c in found] == IDS and len(found) == 13
    assert found["T2"].name == "trainability"
    for key in ("T14", "t2", 0):
        with pytest.raises(mrviz.InputError, match="there are T1, T2, T3, T4"):
            found[key]
    assert {c.tag for c in found} == {"paper", "lit", "derived"}
    assert all(c.sentence and c.formula and c.source and c.why for c in found)
    assert {c.status for c in found} <= set(mrviz.theory.ICONS)


def test_conditions_as_data():
    found = mrviz.transfer_conditions(make(), task(), n=3)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["n"] == 3 and data["T1"]["threshold"] == 9
    frame = found.to_frame()
    assert list(frame.index) == IDS
    assert frame.loc["T2", "status"] == "holds"


def test_conditions_as_text():
    found = mrviz.transfer_conditions(make(name="<b>bold</b>"), task())
    text, markup = repr(found), found._repr_html_()
    assert "T2 trainability: ✔ holds" in text and "T8 source strength: ? undecided" in text
    assert "4 target samples" in text and "✔ holds" in markup
    assert "<b>bold" not in markup and "&lt;b&gt;bold" in markup


@pytest.mark.parametrize("n", [0, -1, 5])
def test_number_of_samples_that_does_not_fit(n):
    with pytest.raises(mrviz.InputError, match=rf"n={n} does not fit: the target has 4 training"):
        mrviz.transfer_conditions(make(), task(), n=n)


def test_gram_of_another_number_of_samples():
    model, target = make(), task()
    gram = mrviz.ntk_gram(model, target.x_train[:3])
    with pytest.raises(mrviz.InputError, match=r"n=4 does not fit.*the Gram is of 3"):
        mrviz.transfer_conditions(model, target, n=4, gram=gram)
    assert mrviz.transfer_conditions(model, target, gram=gram).n == 3


def test_a_given_gram_gives_the_same_conditions():
    model, target = make(linear_border(CANVAS, IMAGE)), task()
    gram = mrviz.ntk_gram(model, target.x_train)
    a = mrviz.transfer_conditions(model, target)
    assert a == mrviz.transfer_conditions(model, target, gram=gram)
    with pytest.raises(mrviz.InputError, match="without x2"):
        cross = mrviz.ntk_gram(model, target.x_train, target.x_train)
        mrviz.transfer_conditions(model, target, gram=cross)


def test_target_with_another_number_of_classes():
    model, target = make(), task(n=4, y=[0, 1, 0, 1])
    with pytest.raises(mrviz.InputError, match="one output for each target class"):
        mrviz.transfer_conditions(model, target)


def test_a_program_of_ones_own():
    model = make(nn.Conv2d(1, 1, 3, padding=2))
    found = mrviz.transfer_conditions(model, task())
    assert found["T1"].status == "fails" and found["T1"].value == 10
    assert found["T2"].status == "fails" and found["T3"].status == "undecided"


@pytest.mark.parametrize(
    ("y", "message"),
    [([0, 1, 5, 0], "labels from 0 to 2"), ([0, -1, 1, 0], "got labels from -1")],
)
def test_labels_outside_the_classes(y, message):
    x = uniform(4, *IMAGE)
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.Target(x, y, x, [0, 1, 2, 0], classes=("a", "b", "c"))
    with pytest.raises(mrviz.InputError, match="labels from 0 to 2"):
        make(test_data=(uniform(2, *CANVAS), [0, 3]))
