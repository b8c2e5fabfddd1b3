"""The matched prediction against real training: of the linearised model, and of the model."""

import copy
import dataclasses
import json
import threading

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn
from torch.func import functional_call, jacrev

import mrviz
from mrviz import mappings
from mrviz.programs.losses import accuracies, sample_losses
from mrviz.programs.training import train
from mrviz.theory import prediction as module
from mrviz.theory.prediction import predict_training
from tests.ntk.common import close, conv_net, dense_net, uniform
from tests.theory.test_leave_one_out import left_out

CANVAS, IMAGE = (1, 6, 6), (1, 4, 4)
QUIET = {"progress": False}


def task(n=8, m=6):
    x = uniform(n + m, *IMAGE)
    y = torch.arange(n + m) % 3
    return mrviz.Target(x[:n], y[:n], x[n:], y[n:])


def make(program="linear_border", net=conv_net, head=True):
    source = mrviz.SourceModel(net(CANVAS, 5, 1), CANVAS)
    mapping = mappings.Identity(3)
    mapping = mappings.LinearHead(mapping) if head else mapping
    return mrviz.reprogram(source, task(), program=program, mapping=mapping)


def linear_model(program="linear"):
    """A model that is linear in its parameters, so that its linearisation is itself."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    source = mrviz.SourceModel(net, CANVAS)
    return mrviz.reprogram(source, task(), program=program, mapping="identity")


def linearised(model, x):
    """θ₀ (p,) and f_lin(θ) = f(θ₀) + J (θ − θ₀) on samples x, by automatic differentiation."""
    names = {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in names.values()]
    start = torch.cat([p.flatten() for p in names.values()])

    def f(theta):
        parts = theta.split(sizes)
        pairs = zip(names.items(), parts, strict=True)
        return functional_call(model, {k: v.view(p.shape) for (k, p), v in pairs}, (x,))

    jacobian, origin = jacrev(f)(start), f(start)
    return start, lambda theta: origin + jacobian @ (theta - start)


@pytest.mark.parametrize("program", ["linear_border", "overlay"])
@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("optimizer", ["gd", "momentum"])
def test_gradient_descent_on_the_linearised_model(optimizer, loss, program):
    """Real full-batch training of f_lin by autograd: outputs and losses to 1e-6, at every step."""
    model, target = make(program), task()
    beta = {"momentum": 0.8} if optimizer == "momentum" else {}
    predicted = predict_training(
        model, target, loss=loss, optimizer=optimizer, steps=30, **beta, **QUIET
    )
    start, f = linearised(model, target.x_train.double())
    _, f_test = linearised(model, target.x_test.double())
    y, y_test = target.targets_of(target.y_train), target.targets_of(target.y_test)
    theta = start.clone().requires_grad_(True)
    method = torch.optim.SGD([theta], lr=predicted.lr, momentum=beta.get("momentum", 0.0))
    curve = predicted.trajectory
    for step in range(31):
        value = sample_losses(f(theta), y, loss).mean()
        held_out = f_test(theta).detach()
        assert curve.train_loss[step] == pytest.approx(float(value.detach()), rel=1e-6)
        expected = float(sample_losses(held_out, y_test, loss).mean())
        assert curve.test_loss[step] == pytest.approx(expected, rel=1e-6)
        assert curve.train_accuracy[step] == float(accuracies(f(theta).detach(), y))
        assert curve.test_accuracy[step] == float(accuracies(held_out, y_test))
        if step < 30:
            method.zero_grad()
            value.backward()
            method.step()
    assert close(curve.outputs, f(theta).detach(), 1e-6)
    assert close(curve.test_outputs, f_test(theta).detach(), 1e-6)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("optimizer", ["gd", "momentum"])
def test_a_model_that_is_linear_in_its_parameters_is_predicted_exactly(optimizer, loss):
    model, target = linear_model(), task()
    predicted = predict_training(
        model, target, loss=loss, optimizer=optimizer, steps=40, n=7, n_test=5, **QUIET
    )
    fit = train(model, target, **predicted.train_options, **QUIET)
    curve = predicted.trajectory
    assert fit.steps == curve.steps and fit.settings["n"] == 7 and fit.settings["n_test"] == 5
    assert fit.train_loss == pytest.approx(curve.train_loss, rel=1e-10)
    assert fit.test_loss == pytest.approx(curve.test_loss, rel=1e-10)
    assert fit.train_accuracy == curve.train_accuracy
    assert fit.test_accuracy == curve.test_accuracy
    assert close(model.predict(target.x_test[:5]), curve.test_outputs, 1e-10)


def test_the_model_itself_comes_closer_as_it_moves_less():
    """The kernel's change is of the order of the movement: errors shrink faster than it does."""
    target, errors, moves = task(), [], []
    for shrink in (10, 100, 1000):
        model = make()
        lr = predict_training(model, target, steps=10, **QUIET).lr / shrink
        predicted = predict_training(model, target, lr=lr, steps=10, **QUIET)
        before = model.predict(target.x_test)
        train(model, target, **predicted.train_options, **QUIET)
        after = model.predict(target.x_test)
        errors.append(float((after - predicted.trajectory.test_outputs).norm()))
        moves.append(float((after - before).norm()))
    assert errors[2] < 0.002 * moves[2]
    assert errors[1] / errors[2] == pytest.approx(100, rel=0.2), "second order"


@given(st.integers(0, 1000), st.floats(0.05, 0.95))
def test_predicted_training_loss_falls_below_the_edge(seed, share):
    x = uniform(6, *IMAGE, seed=seed)
    target = mrviz.Target(x, [0, 1, 2, 0, 1, 2], x, [0, 1, 2, 0, 1, 2])
    model = mrviz.reprogram(
        mrviz.SourceModel(dense_net(CANVAS, 3, seed), CANVAS), target, program="linear", seed=seed
    )
    edge = predict_training(model, target, steps=1, **QUIET).stable_step
    found = predict_training(model, target, lr=share * edge, steps=12, **QUIET)
    losses = torch.tensor(found.trajectory.train_loss, dtype=torch.float64)
    assert (losses.diff() < 0).all() and not found.notes


def test_default_step_is_half_the_edge():
    model = linear_model()
    top = float(torch.linalg.eigvalsh(mrviz.ntk_gram(model, task().x_train).matrix)[-1])
    for options, edge in (
        ({"loss": "squared"}, 2 * 8 / top),
        ({}, 4 * 8 / top),
        ({"loss": "squared", "optimizer": "momentum", "momentum": 0.5}, 3 * 8 / top),
    ):
        found = predict_training(model, task(), steps=2, **options, **QUIET)
        assert found.stable_step == pytest.approx(edge, rel=1e-9)
        assert found.lr == pytest.approx(edge / 2, rel=1e-9)


def test_a_step_above_the_edge_is_simulated_and_said_so():
    model, target = linear_model(), task()
    edge = predict_training(model, target, loss="squared", steps=2, **QUIET).stable_step
    found = predict_training(model, target, loss="squared", lr=3 * edge, steps=400, **QUIET)
    assert found.lr == pytest.approx(3 * edge) and "unstable" in found.notes[0]
    assert "diverged" not in found.notes[0] and found.trajectory.train_loss[-1] > 1e6
    worse = predict_training(model, target, loss="squared", lr=1e6 * edge, steps=400, **QUIET)
    assert "diverged at step" in worse.notes[1]
    with pytest.warns(UserWarning, match="diverged"):
        fit = train(model, target, **worse.train_options, **QUIET)
    assert abs(fit.diverged - worse.trajectory.diverged) <= 4, "every fourth step is recorded"
    assert "below which the loss is sure to fall" in str(
        predict_training(model, target, lr=3 * edge, steps=2, **QUIET).notes
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_other_optimisers_are_predicted_by_fixed_steps_and_said_so(optimizer):
    model, target = make(), task()
    plain = predict_training(model, target, steps=20, **QUIET)
    found = predict_training(model, target, optimizer=optimizer, steps=20, **QUIET)
    assert found.trajectory.test_loss == plain.trajectory.test_loss
    assert "approximation" in found.notes[0] and not plain.notes
    assert found.settings["optimizer"] == optimizer
    options = found.train_options
    assert ("lr" in options) == (optimizer == "sgd")
    fit = train(model, target, **options, **QUIET)
    assert fit.settings["optimizer"] == optimizer and fit.steps[-1] == 20


def test_flow_is_the_limit_of_small_steps():
    model, target = make(), task()
    flowing = predict_training(model, target, optimizer="flow", lr=0.2, steps=10, **QUIET)
    small = predict_training(model, target, lr=0.001, steps=2000, **QUIET)
    assert flowing.trajectory.times[-1] == small.trajectory.times[-1]
    assert flowing.trajectory.test_loss[-1] == pytest.approx(
        small.trajectory.test_loss[-1], rel=1e-2
    )
    assert flowing.train_options["optimizer"] == "gd"


def test_grams_that_are_there_are_used(monkeypatch):
    model, target = make(), task()
    expected = predict_training(model, target, steps=5, n=7, n_test=4, **QUIET)
    gram = mrviz.ntk_gram(model, target.x_train[:7], **QUIET)
    cross = mrviz.ntk_gram(model, target.x_test[:4], target.x_train[:7], **QUIET)
    monkeypatch.setattr(module, "ntk_gram", None)
    found = predict_training(model, target, steps=5, gram=gram, cross=cross, **QUIET)
    assert found.settings == expected.settings and found.gram is gram
    assert found.trajectory.test_loss == pytest.approx(expected.trajectory.test_loss, rel=1e-12)


def test_held_out_samples_in_parts(monkeypatch):
    model, target = make(), task()
    whole = predict_training(model, target, steps=5, **QUIET)
    monkeypatch.setattr(module, "CROSS_BYTES", 2 * 8 * 3 * 24)
    parts = predict_training(model, target, steps=5, **QUIET)
    assert parts.trajectory.test_loss == pytest.approx(whole.trajectory.test_loss, rel=1e-12)
    assert parts.ridge_accuracy == whole.ridge_accuracy


@pytest.mark.parametrize("reduce", ["trace", "sum"])
def test_reduced_kernels_are_approximations(reduce):
    model, target = make(), task()
    found = predict_training(model, target, steps=5, reduce=reduce, lr=0.1, **QUIET)
    assert f"{reduce} kernel" in found.notes[0] and found.settings["reduce"] == reduce
    small = mrviz.ntk_gram(model, target.x_train, reduce=reduce, **QUIET)
    big = dataclasses.replace(
        mrviz.ntk_gram(model, target.x_train, **QUIET),
        matrix=torch.kron(small.matrix, torch.eye(3).double()),
    )
    cross = mrviz.ntk_gram(model, target.x_test, target.x_train, **QUIET)
    part = mrviz.ntk_gram(model, target.x_test, target.x_train, reduce=reduce, **QUIET)
    cross = dataclasses.replace(cross, matrix=torch.kron(part.matrix, torch.eye(3).double()))
    full = predict_training(model, target, steps=5, gram=big, cross=cross, lr=0.1, **QUIET)
    assert found.trajectory.test_loss == pytest.approx(full.trajectory.test_loss, rel=1e-10)


def test_ridge_regression_and_leave_one_out_are_beside_it():
    model, target = make(), task()
    found = predict_training(model, target, steps=10, lr=0.2, **QUIET)
    assert found.ridge == pytest.approx(8 / 2.0)
    gram = mrviz.ntk_gram(model, target.x_train).matrix
    cross = mrviz.ntk_gram(model, target.x_test, target.x_train).matrix
    y = target.targets_of(target.y_train)
    r = y - model.predict(target.x_train)
    weights = torch.linalg.solve(gram + 4 * torch.eye(24).double(), r.flatten())
    outputs = model.predict(target.x_test) + (cross @ weights).view(6, 3)
    expected = float(accuracies(outputs, target.targets_of(target.y_test)))
    assert found.ridge_accuracy == expected
    without = y - left_out(gram, r, 4.0, 3)
    assert found.leave_one_out_accuracy == float(accuracies(without, y))
    other = predict_training(model, target, steps=10, lr=0.2, ridge=1e9, **QUIET)
    assert other.ridge_accuracy == found.trajectory.test_accuracy[0], "nothing learned"
    beta = predict_training(model, target, steps=10, lr=0.2, optimizer="momentum", **QUIET)
    assert beta.ridge == pytest.approx(0.4)


def test_the_model_is_left_alone_and_precision_can_be_chosen():
    model, target = make(), task()
    before = copy.deepcopy(model.state_dict())
    single = predict_training(model, target, steps=5, lr=0.1, dtype=torch.float32, **QUIET)
    double = predict_training(model, target, steps=5, lr=0.1, **QUIET)
    assert single.gram.info.dtype == "float32" and double.gram.info.dtype == "float64"
    assert single.trajectory.test_loss == pytest.approx(double.trajectory.test_loss, rel=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_real_valued_targets():
    x, y = uniform(8, *IMAGE), uniform(8, 3, seed=1).float()
    target = mrviz.Target(x, y, x[:4], y[:4])
    model = mrviz.reprogram(make().source, target, program="linear", mapping="identity")
    found = predict_training(model, target, loss="squared", steps=5, **QUIET)
    assert found.accuracy is None and found.ridge_accuracy is None
    assert found.leave_one_out_accuracy is None and found.trajectory.test_loss[-1] > 0
    held_out = found.trajectory.test_outputs
    assert found.mse == pytest.approx(float((held_out - target.y_test).square().mean()))
    assert found.to_dict()["mse"] == found.mse
    assert predict_training(make(), task(), steps=5, **QUIET).mse is None  # cross-entropy
    with pytest.raises(mrviz.InputError, match="loss='squared'"):
        predict_training(model, target, **QUIET)


def test_the_result_is_plain_and_readable():
    found = predict_training(make(), task(), steps=5, **QUIET)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["accuracy"] == found.accuracy == found.trajectory.test_accuracy[-1]
    assert repr(found).startswith("Prediction(gd, lr=") and "stable below" in repr(found)
    page = found._repr_html_()
    assert "Predicted training" in page and "ridge accuracy" in page


def test_cancelling():
    stop = threading.Event()
    stop.set()
    with pytest.raises(mrviz.Cancelled):
        predict_training(make(), task(), cancel=stop, **QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lbfgs"}, "optimizer must be one of"),
        ({"optimizer": "adam", "lr": 0.1}, "lr of Adam"),
        ({"momentum": 0.5}, "momentum applies"),
        ({"lr": 0.0}, "positive"),
        ({"steps": 0}, "steps"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"n": 9}, "has 8 such samples"),
        ({"reduce": 1}, "class 1 alone"),
        ({"ridge": -1.0}, "negative"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        predict_training(make(), task(), **{"steps": 2, **options}, **QUIET)


def test_grams_that_do_not_fit():
    model, target = make(), task()
    gram = mrviz.ntk_gram(model, target.x_train, **QUIET)
    cross = mrviz.ntk_gram(model, target.x_test, target.x_train, **QUIET)
    for options in ({"n": 7}, {"reduce": "trace"}):
        with pytest.raises(mrviz.InputError, match="training samples asked for"):
            predict_training(model, target, gram=gram, **options, **QUIET)
    with pytest.raises(mrviz.InputError, match="training samples asked for"):
        predict_training(model, target, gram=cross, n=6, **QUIET)
    with pytest.raises(mrviz.InputError, match="held-out and 8 training"):
        predict_training(model, target, cross=cross, n_test=5, **QUIET)
    dead = dataclasses.replace(gram, matrix=0 * gram.matrix)
    with pytest.raises(mrviz.InputError, match="kernel is zero"):
        predict_training(model, target, gram=dead, **QUIET)
