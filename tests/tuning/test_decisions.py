"""What autotune decides, by what, and what it does not look at."""

import threading

import pytest
import torch

import mrviz

pytest.importorskip("optuna")
pytest.importorskip("sklearn")

SMALL = {
    "programs": [("border", {"image_size": 6}), "linear"],
    "capacities": 2,
    "finalists": 2,
    "steps": 20,
    "n": 40,
    "progress": False,
}


@pytest.fixture(scope="module")
def source():
    return mrviz.load_source(
        "dnn", depth=2, width=32, input_size=8, trained_on="digits", epochs=5, progress=False
    )


@pytest.fixture(scope="module")
def target():
    return mrviz.load_target("digits", n_train=80, n_val=40, n_test=60, seed=1)


def choices(tuning):
    return [(t.candidate, t.lr, t.steps, t.kept, t.val_accuracy, t.ended) for t in tuning.trials]


@pytest.fixture(scope="module")
def tuned(source, target):
    return mrviz.autotune(source, target, 100, **SMALL)


def test_the_budget_is_spent_to_the_step_and_the_best_is_kept(tuned, target):
    assert tuned.steps == 100 == sum(t.steps for t in tuned.trials)
    assert tuned.chosen.role == "finalist"
    assert tuned.val_accuracy == max(t.val_accuracy for t in tuned.trials)
    right = tuned.model.predict(target.x_val).argmax(1) == target.y_val
    assert float(right.double().mean()) == pytest.approx(tuned.val_accuracy)
    right = tuned.model.predict(target.x_test).argmax(1) == target.y_test
    assert float(right.double().mean()) == pytest.approx(tuned.test_accuracy)
    finalists = [c.predicted_accuracy for c in tuned.candidates if c.role == "finalist"]
    rejected = [c.predicted_accuracy for c in tuned.candidates if c.role == "rejected"]
    assert min(finalists) >= max(rejected)


def test_test_samples_decide_nothing(source, target, tuned):
    other = mrviz.Target(
        target.x_train,
        target.y_train,
        torch.rand_like(target.x_test),
        target.y_test.flip(0),
        x_val=target.x_val,
        y_val=target.y_val,
    )
    again = mrviz.autotune(source, other, 100, **SMALL)
    assert choices(again) == choices(tuned)
    assert again.test_loss != tuned.test_loss


def test_predictions_are_those_of_predict_training(source, target, tuned):
    from mrviz.tuning import validation_split

    row = next(c for c in tuned.candidates if c.program == "linear" and c.mapping == "identity")
    split = validation_split(target)
    watched = mrviz.Target(split.x_train, split.y_train, split.x_val, split.y_val)
    model = mrviz.reprogram(source, watched, program="linear", mapping="identity", seed=0)
    expected = mrviz.predict_training(
        model,
        watched,
        steps=20,
        n=40,
        n_test=40,
        loss="cross_entropy",
        optimizer="momentum",
        progress=False,
    )
    assert row.predicted_accuracy == expected.accuracy


def test_an_audit_trains_rejected_candidates_beside_the_budget(source, target, tuned):
    audited = mrviz.autotune(source, target, 100, audit=2, **SMALL)
    assert tuned.regret is None and "not measured" in repr(tuned)
    assert audited.steps == 100 and audited.audit_steps > 0 and audited.regret >= 0
    assert sum(c.audited for c in audited.candidates) == 2
    assert all(c.role == "rejected" for c in audited.candidates if c.audited)
    assert not audited.best.audit
    saved = audited.saved
    assert saved.candidates == sum(c.role == "rejected" for c in audited.candidates)
    assert saved.steps == pytest.approx(100 * saved.candidates / 2)


def test_cancel_keeps_what_was_trained(source, target):
    stop = threading.Event()

    def progress(done, total, label):
        if label == "training finalists" and done >= 30:
            stop.set()

    with pytest.raises(mrviz.Cancelled) as caught:
        mrviz.autotune(source, target, 100, cancel=stop, **{**SMALL, "progress": progress})
    partial = caught.value.tuning
    assert partial.model is not None and 30 <= partial.steps < 100
    assert partial.test_accuracy is None and partial.trials[-1].ended == "cancelled"


def test_real_valued_targets_are_decided_by_loss(source):
    x = torch.rand(60, 1, 8, 8)
    y = torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)
    target = mrviz.Target(x[:40], y[:40], x[40:], y[40:])
    options = {**SMALL, "n": 20}
    tuning = mrviz.autotune(source, target, 40, **options)
    assert tuning.val_accuracy is None and tuning.test_accuracy is None
    assert tuning.val_loss == min(t.val_loss for t in tuning.trials if t.val_loss is not None)
    assert {c.mapping for c in tuning.candidates} == {"identity"}


def test_a_target_without_validation_samples_gets_some_of_its_training_samples(source, target):
    plain = mrviz.Target(target.x_train, target.y_train, target.x_test, target.y_test)
    split = mrviz.tuning.validation_split(plain, 0.25)
    assert len(split.x_train) + len(split.x_val) == len(plain.x_train)
    assert split.y_val.bincount().tolist() == [2] * 10
    rows = torch.cat([split.x_train, split.x_val]).flatten(1)
    assert torch.equal(rows.unique(dim=0), plain.x_train.flatten(1).unique(dim=0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budget": 10}, "budget=10 .* do not train 2 finalists"),
        ({"programs": []}, "no candidates"),
        ({"programs": ["lineer"]}, "lineer"),
        ({"mappings": ["nothing"]}, "nothing"),
        ({"validation": 2.0}, "between 0 and 1"),
        ({"optimizer": "gd", "batch_size": 4}, "batch_size"),
    ],
)
def test_what_cannot_be_is_refused_with_advice(source, target, change, words):
    with pytest.raises(mrviz.InputError, match=words):
        mrviz.autotune(source, target, **{"budget": 100, **SMALL, **change})


def test_the_code_makes_the_best_model_again(source, target, tuned):
    names = {"target": target}
    exec(tuned.code(), names)
    again = names["fit"].outcome
    assert again.val_accuracy == pytest.approx(tuned.val_accuracy)
