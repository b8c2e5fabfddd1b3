"""Which parameters training keeps: validation samples, patience, Cancel; schedules, precision."""

import copy
import itertools
import math
import threading

import pytest
import torch
from torch.nn import functional as F

import mrviz
from mrviz import mappings
from mrviz.errors import DeviceError
from mrviz.programs.training import run
from tests.ntk.common import close, conv_net, uniform
from tests.programs.test_training import CANVAS, IMAGE, QUIET, make, parameters, task


def validated(seed=5):
    """The task with validation samples whose labels are drawn apart from the images."""
    base = task()
    y = torch.randint(0, 3, (9,), generator=torch.Generator().manual_seed(seed))
    return mrviz.Target(
        base.x_train,
        base.y_train,
        base.x_test,
        base.y_test,
        x_val=uniform(9, *IMAGE, seed=seed),
        y_val=y,
    )


def by_hand(steps, rule, target=None):
    """The step a rule chooses among all, and the parameters there."""
    target, model = target or validated(), make()
    found = []
    for step in range(steps + 1):
        if step:
            train(model, target, steps=1)
        outputs = model.predict(target.x_val)
        loss = float(F.cross_entropy(outputs, target.y_val))
        share = float((outputs.argmax(1) == target.y_val).double().mean())
        found.append((rule(loss, share), step, parameters(model)))
    return max(found, key=lambda entry: (entry[0], -entry[1]))


def train(model, target, **options):
    return mrviz.train(model, target, **{"optimizer": "gd", "lr": 0.5, **options}, **QUIET)


RULES = {
    "val_loss": lambda loss, share: (-loss,),
    "val_accuracy": lambda loss, share: (share, -loss),
}


@pytest.mark.parametrize("keep", RULES)
def test_the_best_parameters_by_validation_are_kept(keep):
    model, target = make(), validated()
    _, step, best = by_hand(25, RULES[keep])
    assert 0 < step < 25, "the task tells the best step from the ends"
    fit = train(model, target, steps=25, keep=keep)
    assert fit.kept == step and fit.stopped is None
    assert close(parameters(model), best, 1e-12)
    outputs = model.predict(target.x_val)
    assert fit.outcome.val_loss == pytest.approx(float(F.cross_entropy(outputs, target.y_val)))
    assert fit.outcome is fit.history[step] and f"parameters of step {step} kept" in repr(fit)


def test_test_samples_never_decide():
    target = validated()
    other = mrviz.Target(
        target.x_train,
        target.y_train,
        uniform(30, *IMAGE, seed=8),
        torch.arange(30) % 3,
        x_val=target.x_val,
        y_val=target.y_val,
    )
    models = [make(), make()]
    fits = [
        train(model, data, steps=25, patience=4)
        for model, data in zip(models, (target, other), strict=True)
    ]
    assert fits[0].kept == fits[1].kept and fits[0].steps == fits[1].steps
    assert torch.equal(parameters(models[0]), parameters(models[1]))
    assert fits[0].test_loss != fits[1].test_loss


def test_patience_counts_measurements_without_a_better_one():
    everything = train(make(), validated(), steps=60, keep="val_loss")
    best, waited, expected = math.inf, 0, None
    for measured in everything.history:
        waited = 0 if measured.val_loss < best else waited + 1
        best = min(best, measured.val_loss)
        if waited == 3:
            expected = measured.step
            break
    assert expected is not None and expected < 60
    model = make()
    fit = train(model, validated(), steps=60, patience=3)
    assert fit.steps[-1] == expected and fit.kept == expected - 3 and fit.stopped == "patience"
    assert fit.settings["keep"] == "val_loss" and "stopped early" in repr(fit)
    assert fit.history == everything.history[: expected + 1]
    sparse = train(make(), validated(), steps=60, patience=1, record_every=7)
    assert sparse.steps[-1] % 7 == 0 and sparse.kept == sparse.steps[-2]


def test_without_asking_the_last_parameters_stay_and_validation_is_only_measured():
    model, twin = make(), make()
    fit = train(model, validated(), steps=8)
    bare = train(twin, task(), steps=8)
    assert torch.equal(parameters(model), parameters(twin))
    assert fit.kept == 8 and bare.kept == 8 and fit.outcome is fit.history[-1]
    assert bare.val_loss == (None,) * 9 and None not in fit.val_loss
    assert fit.train_loss == bare.train_loss and "val loss" in fit._repr_html_()
    assert "val loss" not in bare._repr_html_()


def test_cancelling_gives_the_record_and_the_best_so_far():
    model, stop = make(), threading.Event()
    _, step, best = by_hand(20, RULES["val_loss"])

    def halt(measured):
        if measured.step == 20:
            stop.set()

    with pytest.raises(mrviz.Cancelled, match=f"best so far, those of step {step}") as caught:
        train(model, validated(), steps=90, keep="val_loss", cancel=stop, on_step=halt)
    fit = caught.value.fit
    assert fit.stopped == "cancelled" and fit.kept == step and fit.steps == tuple(range(21))
    assert close(parameters(model), best, 1e-12)


def test_cancelling_without_validation_keeps_the_last_step_and_the_record():
    model, twin, stop = make(), make(), threading.Event()
    seen = []

    def halt(done, total, label):
        seen.append(label)
        if done == 5:
            stop.set()

    options = {"optimizer": "gd", "lr": 0.5, "cancel": stop, "progress": halt}
    with pytest.raises(mrviz.Cancelled, match="after 5 of 9") as caught:
        mrviz.train(model, task(), steps=9, record_every=4, **options)
    fit = caught.value.fit
    assert fit.kept == 5 and fit.steps == (0, 4) and fit.outcome is None
    train(twin, task(), steps=5)
    assert torch.equal(parameters(model), parameters(twin))
    assert seen[-1].startswith("training, loss ")
    assert mrviz.Cancelled("something else").fit is None


def test_an_interrupt_from_the_keyboard_leaves_the_best_so_far_too():
    model = make()
    _, _, best = by_hand(20, RULES["val_loss"])

    def interrupt(measured):
        if measured.step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, validated(), steps=90, keep="val_loss", on_step=interrupt)
    assert close(parameters(model), best, 1e-12)


def test_a_divergence_leaves_the_best_before():
    source = mrviz.SourceModel(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3)), CANVAS
    )
    model = mrviz.ReprogrammedModel(
        source, mrviz.programs.Linear(CANVAS, IMAGE), mappings.Identity()
    )
    twin = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="The parameters are the best before, those of step"):
        fit = train(model, validated(), loss="squared", lr=1e4, steps=500, keep="val_loss")
    assert fit.kept == 0 and fit.diverged and torch.equal(parameters(model), parameters(twin))
    with pytest.warns(UserWarning, match="The parameters are lost"):
        assert train(twin, validated(), loss="squared", lr=1e4, steps=500).kept is None


def test_the_cosine_schedule_is_that_of_pytorch():
    model, twin, target = make(), make(), task()
    fit = mrviz.train(model, target, steps=9, batch_size=12, schedule="cosine", **QUIET)
    border, linear = twin.program.second, twin.program.first
    method = torch.optim.Adam(
        [
            {"params": [linear.weight, linear.bias], "lr": 1e-3},
            {"params": [border.delta], "lr": 0.1},
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(method, 9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(9):
        rows = torch.randperm(12, generator=generator)
        method.zero_grad()
        F.cross_entropy(twin(target.x_train[rows].double()), target.y_train[rows]).backward()
        method.step()
        schedule.step()
    assert close(parameters(model), parameters(twin), 1e-12)
    assert fit.settings["schedule"] == "cosine"


def test_deterministic_algorithms_are_on_while_training_only():
    seen = []

    class Watching(torch.nn.Module):
        def forward(self, x):
            seen.append(torch.are_deterministic_algorithms_enabled())
            return x.flatten(1)[:, :5]

    model = mrviz.reprogram(mrviz.SourceModel(Watching(), CANVAS), task(), program="linear")
    seen.clear()
    train(model, task(), steps=2, deterministic=True)
    assert seen and all(seen) and not torch.are_deterministic_algorithms_enabled()
    seen.clear()
    train(model, task(), steps=2)
    assert not any(seen)
    with pytest.raises(mrviz.InputError):
        train(model, task(), loss="hinge", deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()


def single(program="border"):
    """The same model in float32."""
    net = conv_net(CANVAS, 5, 1).float()
    source = mrviz.SourceModel(net, CANVAS)
    return mrviz.reprogram(source, task(), program=program, mapping=mappings.Identity(3))


@pytest.mark.parametrize("optimizer", ["gd", "adam"])
def test_mixed_precision_is_near_full_precision_and_not_the_same(optimizer):
    lr = {"gd": 0.3, "adam": None}[optimizer]
    runs = {}
    for amp in (False, True, "bfloat16"):
        model = single()
        fit = train(model, task(), optimizer=optimizer, lr=lr, steps=10, amp=amp)
        runs[amp] = fit, parameters(model)
        assert parameters(model).dtype == torch.float32
        assert fit.settings["amp"] == ("bfloat16" if amp else None)
    moved = runs[False][1].norm()
    difference = (runs[True][1] - runs[False][1]).norm()
    assert 0 < difference < 0.1 * moved
    assert torch.equal(runs[True][1], runs["bfloat16"][1])
    assert runs[True][0].train_loss[0] == runs[False][0].train_loss[0], "measured in full"


def test_a_loss_scale_that_overflows_is_halved_and_the_step_left_out(monkeypatch):
    """float16 on the CPU, which only this test allows: its way of working is that of a GPU."""
    monkeypatch.setattr(run, "check_amp", lambda *args: "float16")
    kind, scalers = torch.amp.GradScaler, []

    def scaler(*args, **kwargs):
        scalers.append(kind(*args, init_scale=2.0**36, **kwargs))
        return scalers[-1]

    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    model, seen = single(), []
    start = parameters(model)
    train(model, task(), lr=0.3, steps=30, on_step=lambda measured: seen.append(parameters(model)))
    still = [torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    skipped = sum(still)
    assert 0 < skipped < 25 and all(still[:skipped]) and not any(still[skipped:])
    assert scalers[0].get_scale() == 2.0 ** (36 - skipped)
    monkeypatch.undo()
    full = single()
    train(full, task(), lr=0.3, steps=30 - skipped)
    moved = (parameters(full) - start).norm()
    assert 0 < (parameters(model) - parameters(full)).norm() < 0.05 * moved


def test_mixed_precision_where_it_is_not_available():
    with pytest.raises(DeviceError, match="needs an NVIDIA GPU"):
        train(single(), task(), steps=1, amp="float16")
    with pytest.raises(mrviz.InputError, match="float64"):
        train(make(), task(), steps=1, amp=True)
    with pytest.raises(mrviz.InputError, match="full precision"):
        train(single(), task(), optimizer="spsa", steps=1, amp=True)


class Majority(mappings.Mapping):
    """Each class takes the source output that is largest on average over its samples."""

    label = "largest mean output"
    refreshes = True

    def __init__(self, chosen=(0, 1, 2)):
        self.chosen = tuple(chosen)

    def refresh(self, outputs, labels):
        calls.append((outputs.clone(), labels.clone()))
        means = [outputs[labels == label].mean(0) for label in range(3)]
        return Majority(int(mean.argmax()) for mean in means)

    def matrix(self, n_source):
        return torch.eye(n_source, dtype=torch.float64)[list(self.chosen)]


calls = []


@pytest.fixture
def iterative():
    calls.clear()
    return mrviz.ReprogrammedModel(make().source, mrviz.programs.Linear(CANVAS, IMAGE), Majority())


def test_an_iterative_mapping_is_refreshed_before_each_epoch(iterative):
    target, twin = task(), copy.deepcopy(iterative)
    mrviz.train(iterative, target, optimizer="sgd", lr=0.5, epochs=3, batch_size=5, **QUIET)
    assert len(calls) == 3
    generator = torch.Generator().manual_seed(0)
    weight, bias = twin.program.weight, twin.program.bias
    for outputs, labels in list(calls):
        expected = twin.source(twin.program(target.x_train.double())).detach()
        assert close(outputs, expected, 1e-12) and torch.equal(labels, target.y_train)
        chosen = Majority().refresh(outputs, labels).chosen
        for rows in torch.randperm(12, generator=generator).split(5):
            logits = twin.source(twin.program(target.x_train[rows].double()))[:, list(chosen)]
            loss = F.cross_entropy(logits, target.y_train[rows])
            for p, g in zip((weight, bias), torch.autograd.grad(loss, (weight, bias)), strict=True):
                p.data -= 0.5 * g
    assert close(parameters(iterative), parameters(twin), 1e-12)
    assert iterative.mapping.chosen == chosen
    assert torch.equal(iterative.b, Majority(chosen).matrix(5))


def test_the_best_parameters_come_with_their_mapping(iterative):
    target = validated()
    fit = train(iterative, target, steps=40, keep="val_loss", lr=2.0)
    assert len(calls) == 40, "a full batch is an epoch"
    outputs = iterative.predict(target.x_val)
    assert fit.outcome.val_loss == pytest.approx(float(F.cross_entropy(outputs, target.y_val)))
    assert torch.equal(iterative.b, iterative.mapping.matrix(5))


def test_an_iterative_mapping_needs_labels(iterative):
    x, y = uniform(9, *IMAGE), uniform(9, 3, seed=1).float()
    with pytest.raises(mrviz.InputError, match="computed from class labels"):
        train(iterative, mrviz.Target(x, y, x, y), loss="squared")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 2, "target": "bare"}, "no validation samples"),
        ({"keep": "val_accuracy", "target": "bare"}, "n_val"),
        ({"keep": "best"}, "keep must be one of"),
        ({"keep": "last", "patience": 2}, "patience needs keep"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"schedule": "cosine", "optimizer": "spsa"}, "fall as"),
        ({"amp": "float8"}, "amp must be one of"),
        ({"checkpoint_every": 2}, "needs a file"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    target = task() if options.pop("target", None) else validated()
    with pytest.raises(mrviz.InputError, match=message):
        train(make(), target, **options)


def test_real_values_have_no_accuracy_to_keep_by():
    x, y = uniform(9, *IMAGE), uniform(9, 3, seed=1).float()
    target = mrviz.Target(x, y, x, y, x_val=x, y_val=y)
    model = mrviz.reprogram(make().source, target, program="linear", mapping="identity")
    with pytest.raises(mrviz.InputError, match="keep='val_loss'"):
        train(model, target, loss="squared", keep="val_accuracy")
    assert train(model, target, loss="squared", lr=0.1, steps=5, keep="val_loss").kept == 5
