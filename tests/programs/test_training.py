"""Training against loops written out by hand, its record, and how it stops."""

import copy
import json
import math
import re
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mrviz
from mrviz import mappings
from mrviz.programs import Border, Linear
from mrviz.programs.fit import recorded_steps
from mrviz.programs.losses import accuracies, output_gradient, sample_losses
from mrviz.programs.training import train
from tests.ntk.common import close, conv_net, dense_net, uniform

CANVAS, IMAGE = (1, 6, 6), (1, 4, 4)
QUIET = {"progress": False}


def make(program="linear_border", head=False, net=conv_net):
    source = mrviz.SourceModel(net(CANVAS, 5, 1), CANVAS)
    mapping = mappings.Identity(3)
    mapping = mappings.LinearHead(mapping) if head else mapping
    return mrviz.reprogram(source, task(), program=program, mapping=mapping)


def task(n=12, m=7):
    x = uniform(n + m, *IMAGE)
    y = torch.arange(n + m) % 3
    return mrviz.Target(x[:n], y[:n], x[n:], y[n:])


def values_task(n=9):
    x, y = uniform(n, *IMAGE), uniform(n, 3, seed=1).float()
    return mrviz.Target(x, y, x[:4], y[:4])


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def mean_loss(model, x, y, loss):
    f = model(x.double())
    if loss == "cross_entropy":
        return F.cross_entropy(f, y)
    return (f - F.one_hot(y, 3)).square().sum() / 2 / len(x)


LOOPS = {
    "gd": lambda p: torch.optim.SGD(p, lr=0.3),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.8),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.3),
}


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("optimizer", LOOPS)
def test_same_parameters_as_a_loop_written_by_hand(optimizer, head, loss):
    model, target = make(head=head), task()
    twin = copy.deepcopy(model)
    by_hand = LOOPS[optimizer]([p for p in twin.parameters() if p.requires_grad])
    generator = torch.Generator().manual_seed(4)
    batches = []
    while len(batches) < 7:
        whole = optimizer in ("gd", "momentum")
        order = torch.arange(12) if whole else torch.randperm(12, generator=generator)
        batches += order.split(12 if whole else 5)
    for rows in batches[:7]:
        by_hand.zero_grad()
        mean_loss(twin, target.x_train[rows], target.y_train[rows], loss).backward()
        by_hand.step()
    options = {"momentum": 0.8} if optimizer == "momentum" else {}
    options |= {"batch_size": 5} if optimizer in ("sgd", "adam") else {}
    fit = train(
        model, target, loss=loss, optimizer=optimizer, lr=0.3, steps=7, seed=4, **options, **QUIET
    )
    assert close(parameters(model), parameters(twin), 1e-12)
    last = float(mean_loss(twin, target.x_test, target.y_test, loss).detach())
    assert fit.test_loss[-1] == pytest.approx(last, rel=1e-12)
    right = twin(target.x_test.double()).argmax(1) == target.y_test
    assert fit.test_accuracy[-1] == pytest.approx(float(right.double().mean()))


def test_plain_steps_are_what_the_theory_describes():
    """θ ← θ − lr·∇ of (1/n)Σ ½‖f − y‖², written without any optimiser."""
    model, target = make("linear"), task()
    twin = copy.deepcopy(model)
    for _ in range(3):
        chosen = [p for p in twin.parameters() if p.requires_grad]
        loss = mean_loss(twin, target.x_train, target.y_train, "squared")
        for p, g in zip(chosen, torch.autograd.grad(loss, chosen), strict=True):
            p.data -= 0.2 * g
    train(model, target, loss="squared", optimizer="gd", lr=0.2, steps=3, **QUIET)
    assert close(parameters(model), parameters(twin), 1e-13)


def test_chunks_do_not_change_the_result():
    models = [make() for _ in range(3)]
    for model, chunk in zip(models, (128, 5, 1), strict=True):
        train(model, task(), optimizer="momentum", lr=0.3, steps=6, chunk_size=chunk, **QUIET)
    for model in models[1:]:
        assert close(parameters(model), parameters(models[0]), 1e-12)


def test_goes_on_with_fewer_samples_where_memory_ends(monkeypatch):
    model, twin = make(), make()
    train(twin, task(), optimizer="gd", lr=0.3, steps=4, **QUIET)
    forward = mrviz.ReprogrammedModel.forward

    def narrow(self, x):
        if torch.is_grad_enabled() and len(x) > 4:
            raise MemoryError("no room")
        return forward(self, x)

    monkeypatch.setattr(mrviz.ReprogrammedModel, "forward", narrow)
    with pytest.warns(UserWarning, match="out of memory with 12 samples"):
        fit = train(model, task(), optimizer="gd", lr=0.3, steps=4, **QUIET)
    assert close(parameters(model), parameters(twin), 1e-12)
    assert "went on with 3" in fit.notes[-1]


def test_the_source_is_frozen_and_nothing_is_left_behind():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 5))
    model = mrviz.reprogram(mrviz.SourceModel(net, CANVAS), task(), program="linear")
    model.train()
    before = copy.deepcopy(model.source.state_dict())
    fits = [train(copy.deepcopy(model), task(), steps=3, **QUIET) for _ in range(2)]
    train(model, task(), steps=3, **QUIET)
    assert fits[0].history == fits[1].history, "dropout is off while training"
    assert model.training and net[1].training, "each module has its own mode back"
    assert all(p.grad is None for p in model.parameters())
    for name, value in model.source.state_dict().items():
        assert torch.equal(value, before[name])


def test_only_trainable_pixels_move():
    model = make(Border(CANVAS, IMAGE))
    model = mrviz.reprogram(model.source, task(), program="border", image_size=2, width=1)
    train(model, task(), steps=5, **QUIET)
    moved = model.program.delta.detach() != 0
    assert torch.equal(moved, model.program.trainable) and moved.sum() == 20


def test_any_module_trains_and_unused_parameters_stay():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Parameter(torch.ones(()))
            self.spare = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return F.pad(x * self.used, (1, 1, 1, 1))

    program = Twice()
    model = mrviz.ReprogrammedModel(make().source, program, mappings.Identity(3))
    train(model, task(), optimizer="gd", lr=0.1, steps=2, **QUIET)
    assert float(program.used.detach()) != 1 and float(program.spare.detach()) == 1


def test_adam_has_the_rates_of_the_paper():
    model, twin, target = make(), make(), task()
    fit = train(model, target, epochs=2, batch_size=5, **QUIET)
    assert fit.settings["lr"] == {"other": 1e-3, "delta": 0.1}
    assert fit.settings["steps"] == 6 and fit.steps == tuple(range(7))
    inner = [twin.program.first.weight, twin.program.first.bias]
    by_hand = torch.optim.Adam(
        [{"params": inner, "lr": 1e-3}, {"params": [twin.program.second.delta], "lr": 0.1}]
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for rows in torch.randperm(12, generator=generator).split(5):
            by_hand.zero_grad()
            mean_loss(twin, target.x_train[rows], target.y_train[rows], "cross_entropy").backward()
            by_hand.step()
    assert close(parameters(model), parameters(twin), 1e-12)
    assert train(make("linear"), target, steps=1, **QUIET).settings["lr"] == {"other": 1e-3}


def test_history_and_callback():
    seen, model = [], make("linear")
    fit = train(
        model,
        task(),
        optimizer="gd",
        lr=0.1,
        steps=10,
        record_every=4,
        n=6,
        n_test=5,
        on_step=seen.append,
        **QUIET,
    )
    assert fit.steps == (0, 4, 8, 10) and list(fit.history) == seen
    assert fit.settings["n"] == 6 and fit.settings["batch_size"] is None
    x, y = task().x_train[:6], task().y_train[:6]
    assert fit.train_loss[-1] == pytest.approx(float(F.cross_entropy(model.predict(x), y)))
    right = model.predict(task().x_test[:5]).argmax(1) == task().y_test[:5]
    assert fit.test_accuracy[-1] == pytest.approx(float(right.double().mean()))
    assert fit.train_loss[-1] < fit.train_loss[0]


def test_recorded_steps():
    assert recorded_steps(3) == (0, 1, 2, 3)
    assert recorded_steps(100) == tuple(range(101))
    assert len(recorded_steps(12_345)) <= 102 and recorded_steps(12_345)[-1] == 12_345
    assert recorded_steps(5, 99) == (0, 5)


def test_progress_reports_every_step():
    reports = []
    train(make(), task(), steps=4, progress=lambda *args: reports.append(args))
    assert [report[:2] for report in reports] == [(done, 4) for done in range(5)]
    assert reports[0][2] == "training"
    assert all(re.fullmatch(r"training, loss \d+\.\d+", label) for _, _, label in reports[1:])


def test_cancelling_leaves_the_last_finished_step():
    model, twin, stop = make(), make(), threading.Event()

    def halt(measured):
        if measured.step == 3:
            stop.set()

    with pytest.raises(mrviz.Cancelled, match="training after 3 of 9 steps"):
        train(model, task(), optimizer="gd", lr=0.3, steps=9, cancel=stop, on_step=halt, **QUIET)
    train(twin, task(), optimizer="gd", lr=0.3, steps=3, **QUIET)
    assert torch.equal(parameters(model), parameters(twin))
    assert all(p.grad is None for p in model.parameters())


def test_divergence_is_flagged():
    source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), CANVAS)
    model = mrviz.ReprogrammedModel(source, Linear(CANVAS, IMAGE), mappings.Identity())
    with pytest.warns(UserWarning, match="above the largest stable step"):
        fit = train(model, task(), loss="squared", optimizer="gd", lr=1e4, steps=500, **QUIET)
    assert 1 < fit.diverged < 500 and fit.steps[-1] < fit.diverged + 1
    assert all(map(math.isfinite, fit.train_loss))
    assert "diverged after step" in repr(fit) and "lower lr" in fit.to_dict()["notes"][0]


def test_a_loss_that_is_not_finite_at_the_start():
    model = make("linear")
    with torch.no_grad():
        model.program.weight.fill_(float("inf"))
    with pytest.raises(mrviz.InputError, match="at the start"):
        train(model, task(), **QUIET)


def test_real_valued_targets():
    target = values_task()
    model = mrviz.reprogram(make().source, target, program="linear", mapping="identity")
    fit = train(model, target, loss="squared", optimizer="gd", lr=0.1, steps=5, **QUIET)
    assert fit.train_accuracy == (None,) * 6 and fit.train_loss[-1] < fit.train_loss[0]
    expected = (model.predict(target.x_test) - target.y_test).square().sum(1).mean() / 2
    assert fit.test_loss[-1] == pytest.approx(float(expected))
    assert "accuracy" not in repr(fit) and "accuracy" not in fit._repr_html_()
    with pytest.raises(mrviz.InputError, match="loss='squared'"):
        train(model, target, **QUIET)


def test_the_record_is_plain_and_readable():
    fit = train(make(), task(), epochs=10, **QUIET)
    assert len(json.loads(json.dumps(fit.to_dict()))["history"]) == 11
    assert repr(fit).startswith("Fit(adam, 10 steps, training loss")
    assert "<caption>Training</caption>" in fit._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "gd", "lr": 0.1, "batch_size": 4}, "batch_size does not apply"),
        ({"optimizer": "momentum"}, "needs a step size"),
        ({"optimizer": "sgd"}, "needs a step size"),
        ({"optimizer": "lbfgs"}, "optimizer must be one of"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"momentum": 0.5}, "momentum applies to"),
        ({"optimizer": "momentum", "lr": 0.1, "momentum": 1.0}, "below 1"),
        ({"lr": 0}, "positive"),
        ({"lr": float("nan")}, "positive"),
        ({"steps": 2, "epochs": 2}, "pass one of them"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"n": 13}, "has 12 such samples"),
        ({"n_test": 8}, "has 7 such samples"),
        ({"n": 0}, "n must be at least 1"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"record_every": 0}, "record_every"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        train(make(), task(), **options, **QUIET)


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(mrviz.InputError, match="must be a ReprogrammedModel"):
        train(make().source, task(), **QUIET)
    five = mrviz.ReprogrammedModel(make().source, Linear(CANVAS, IMAGE), mappings.Identity())
    with pytest.raises(mrviz.InputError, match="5 outputs, but target"):
        train(five, task(), **QUIET)
    frozen = make()
    frozen.requires_grad_(False)
    with pytest.raises(mrviz.InputError, match="no trainable parameters"):
        train(frozen, task(), **QUIET)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_the_gradient_by_outputs_is_that_of_the_loss(loss):
    f = uniform(4, 3, seed=2).requires_grad_(True)
    y = torch.eye(3).double()[[0, 2, 1, 1]]
    (expected,) = torch.autograd.grad(sample_losses(f, y, loss).sum(), f)
    assert close(output_gradient(f.detach(), y, loss), expected, 1e-14)


def test_accuracy_needs_classes():
    f = torch.tensor([[[1.0, 1.0], [0.0, 2.0]], [[0.0, 3.0], [0.0, 3.0]]])
    assert accuracies(f, torch.eye(2)).tolist() == [1.0, 0.5]
    assert accuracies(f, torch.tensor([[0.5, 0.5], [0.0, 1.0]])) is None
    assert accuracies(f[..., :1], torch.ones(2, 1)) is None


def test_dense_sources_train_too():
    model = make("overlay", net=dense_net)
    fit = train(model, task(), steps=20, **QUIET)
    assert fit.train_loss[-1] < fit.train_loss[0]
