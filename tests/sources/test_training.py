import hashlib
import json
import shutil
import threading
import warnings

import pytest
import torch

from mrviz.errors import Cancelled
from mrviz.sources import load_source
from mrviz.sources.training import SourceData

SMALL = {"depth": 2, "width": 256, "trained_on": "digits", "epochs": 8, "progress": False}
X = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def files(cache, suffix):
    return sorted((cache / "sources").glob(f"*{suffix}"))


def quietly(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_source("dnn", **(SMALL | options))


def test_training_on_digits_works_and_repeats_bit_for_bit(cache):
    source = quietly()
    x, y = source.test_data
    accuracy = float((source(x).argmax(1) == y).double().mean())
    report = source.training_report
    assert accuracy > 0.85
    assert accuracy == report.test_accuracy
    assert len(x) == report.n_test and len(report.train_loss) == 8
    assert len(report.val_accuracy) == 9
    assert report.val_accuracy[report.best_epoch] == max(report.val_accuracy)
    assert source.classes == tuple("0123456789")
    written = files(cache, ".pt")[0].stat().st_mtime_ns
    from_cache = quietly()
    assert files(cache, ".pt")[0].stat().st_mtime_ns == written
    assert from_cache.training_report == report
    shutil.rmtree(cache)
    from_scratch = quietly()
    assert torch.equal(source(X), from_cache(X))
    assert torch.equal(source(X), from_scratch(X))


def test_the_inputs_are_normalised_by_the_training_data():
    source = quietly(epochs=0)
    assert float(source.mean) == pytest.approx(4.88 / 16, abs=0.01)
    assert float(source.std) == pytest.approx(6.02 / 16, abs=0.01)


def test_no_epochs_keep_the_initial_weights():
    trained, initial = quietly(epochs=0), load_source("dnn", depth=2, width=256, input_size=8)
    for a, b in zip(trained.module.parameters(), initial.module.parameters(), strict=True):
        assert torch.equal(a, b)
    assert trained.training_report.best_epoch == 0


def test_the_held_out_samples_are_not_trained_on():
    data = SourceData.load("digits", 8)
    rows = [{bytes(image.numpy().tobytes()) for image in x} for x, _ in (data.train, data.test)]
    assert not rows[0] & rows[1]
    for _, y in (data.train, data.val, data.test):
        assert y.bincount().max() == y.bincount().min()


def test_images_are_resized_to_the_input_size():
    source = quietly(input_size=12, epochs=0)
    assert source.input_shape == (1, 12, 12)
    x = source.test_data[0]
    assert x.shape[1:] == (1, 12, 12) and float(x.min()) >= 0 and float(x.max()) <= 1


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "foreign", "sidecar", "no sidecar", "other"]
)
def test_damaged_cache_files_are_found_and_rebuilt(cache, damage):
    sound = quietly(epochs=1)
    weights, sidecar = files(cache, ".pt")[0], files(cache, ".json")[0]
    content = weights.read_bytes()
    if damage == "truncate":
        weights.write_bytes(content[:-100])
    elif damage == "flip":
        middle = len(content) // 2
        weights.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "foreign":
        weights.write_bytes(b"something else")
    elif damage == "sidecar":
        sidecar.write_text("{")
    elif damage == "no sidecar":
        sidecar.unlink()
    else:
        quietly(epochs=1, seed=5)
        other = next(path for path in files(cache, ".pt") if path != weights)
        shutil.copy(other, weights)
        shutil.copy(other.with_suffix(".json"), sidecar)
    with pytest.warns(UserWarning, match="is not usable"):
        rebuilt = load_source("dnn", **(SMALL | {"epochs": 1}))
    assert torch.equal(sound(X), rebuilt(X))
    assert torch.equal(sound(X), quietly(epochs=1)(X))


def test_weights_of_another_network_do_not_pass_for_these(cache):
    quietly(epochs=1)
    record = json.loads(files(cache, ".json")[0].read_text())
    shutil.rmtree(cache)
    quietly(epochs=1, width=255)
    for path in files(cache, ".pt"):
        entry = files(cache, ".json")[0]
        changed = json.loads(entry.read_text())
        target = path.with_name(f"dnn-digits-{_key(record['config'])}.pt")
        shutil.copy(path, target)
        changed["config"] = record["config"]
        changed["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        target.with_suffix(".json").write_text(json.dumps(changed))
    with pytest.warns(UserWarning, match="is not usable"):
        assert load_source("dnn", **(SMALL | {"epochs": 1})).module[1].out_features == 256


def _key(config):
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def test_every_option_has_its_own_cache_entry(cache):
    base = {"depth": 1, "width": 4, "groups": 2, "input_size": 8, "epochs": 0, "seed": 0}
    variants = [base] + [
        base | {key: value}
        for key, value in (
            ("depth", 2),
            ("width", 5),
            ("groups", 1),
            ("input_size", 9),
            ("epochs", 1),
            ("seed", 1),
        )
    ]
    for name in ("vgg", "resnet"):
        for options in variants:
            load_source(name, trained_on="digits", progress=False, **options)
    assert len(files(cache, ".pt")) == 2 * len(variants)


def test_cancelling_stops_within_a_batch_and_leaves_no_entry(cache):
    flag, steps = threading.Event(), []

    def report(done, total, label):
        steps.append((done, total))
        if done == 3:
            flag.set()

    with pytest.raises(Cancelled):
        load_source("dnn", **(SMALL | {"progress": report}), cancel=flag)
    assert [done for done, _ in steps] == [0, 1, 2, 3]
    assert not files(cache, ".pt")


def test_an_unwritable_cache_folder_costs_a_warning_only(cache, monkeypatch):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="MRVIZ_CACHE_DIR"):
        source = load_source("dnn", **(SMALL | {"epochs": 1}))
    assert source(X).shape == (20, 10)
