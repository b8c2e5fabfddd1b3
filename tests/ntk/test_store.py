"""Grams on disk: continued after any interruption, checked, and never mistaken for another."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mrviz
from mrviz import mappings
from mrviz.ntk import store as store_module
from mrviz.programs import Border, Linear
from tests.ntk.common import REDUCTIONS, close, conv_net, uniform

ROOT = Path(__file__).parents[2]
CANVAS, IMAGE = (1, 6, 6), (1, 4, 4)
N = 11


class Net(nn.Module):
    """A small source with an attribute that neither its weights nor its structure shows."""

    def __init__(self):
        super().__init__()
        self.net = conv_net(CANVAS, 3, 1)
        self.gain = 1.0

    def forward(self, u):
        return self.net(u) * self.gain


def make(program=None, net=None, mapping=None):
    source = mrviz.SourceModel(net or Net(), CANVAS)
    program = program or Linear(CANVAS, IMAGE)
    return mrviz.ReprogrammedModel(source, program, mapping or mappings.Identity())


def images(n=N, seed=0):
    return uniform(n, *IMAGE, seed=seed)


def gram_in(path, model=None, x1=None, x2=None, **options):
    options = {"chunk_size": 2, "progress": False, **options}
    x1 = images() if x1 is None else x1
    return mrviz.ntk_gram(model or make(), x1, x2, store=path, **options)


def run_slowly(path):
    """What the process does that is killed."""
    store_module.COMMIT_SECONDS = 0.0
    gram_in(path, memory=1, progress=lambda *_: time.sleep(0.05))


def stop_after(tiles):
    """Progress and flag that cancel a run after so many tiles."""
    flag = threading.Event()

    def progress(done, total, label):
        if label == "Gram tiles" and done >= tiles:
            flag.set()

    return {"progress": progress, "cancel": flag}


def cancelled_after(tiles, path, **options):
    with pytest.raises(mrviz.Cancelled):
        gram_in(path, **options, **stop_after(tiles))


def entries(path):
    text = (path / "journal.txt").read_text() if (path / "journal.txt").exists() else ""
    return [line for line in text.splitlines() if line and not line.startswith("sealed")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The matrix of an uninterrupted run."""
    return gram_in(tmp_path_factory.mktemp("whole") / "gram").matrix.clone()


@pytest.fixture
def finished(tmp_path):
    gram_in(tmp_path / "gram")
    return tmp_path / "gram"


# Results


@pytest.mark.parametrize("other", [None, 5])
@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_same_as_in_memory_and_after_a_cancel_the_same_bits(tmp_path, reduce, method, other):
    x2 = None if other is None else images(other, seed=1)
    options = {"x2": x2, "reduce": reduce, "method": method}
    expected = mrviz.ntk_gram(make(), images(), x2, reduce=reduce, method=method)
    whole = gram_in(tmp_path / "whole", **options)
    assert close(whole.matrix, expected.matrix, 1e-12)
    assert whole.info.symmetry_error == pytest.approx(expected.info.symmetry_error, abs=1e-12)
    assert whole.info.trace == pytest.approx(expected.info.trace)
    assert whole.info.notes == ()
    cancelled_after(3, tmp_path / "parts", **options)
    resumed = gram_in(tmp_path / "parts", **options)
    assert torch.equal(resumed.matrix, whole.matrix)
    assert any(f"of {21 if x2 is None else 18} tiles came" in note for note in resumed.info.notes)
    assert resumed.info.trace == whole.info.trace
    assert resumed.info.symmetry_error == whole.info.symmetry_error


def test_killed_in_the_middle(tmp_path, whole):
    path = tmp_path / "gram"
    code = f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
    code += f"from tests.ntk.test_store import run_slowly; run_slowly({str(path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while len(entries(path)) < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(mrviz.InputError, match="in use by another computation"):
            gram_in(path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = len(entries(path))
    assert 5 <= found < 21
    resumed = gram_in(path)
    assert torch.equal(resumed.matrix, whole)
    assert f"{found} of 21 tiles came from the store" in resumed.info.notes[0]


def test_a_finished_store_opens_at_once(finished, whole):
    again = gram_in(finished)
    assert again.info.computed == 0
    assert torch.equal(again.matrix, whole)
    assert "21 of 21 tiles" in again.info.notes[0]
    assert again.info.trace == pytest.approx(float(whole.trace()))
    labels = set()
    gram_in(finished, progress=lambda done, total, label: labels.add(label))
    assert labels == set(), "nothing is read, nothing is computed"


def test_only_jacobians_that_are_still_needed_are_computed(tmp_path, whole):
    path = tmp_path / "gram"
    cancelled_after(19, path)  # columns 0 to 4 and four of the six tiles of column 5
    done = {tuple(map(int, line.split()[:2])) for line in entries(path)}
    pending = [(i, j) for i in range(6) for j in range(i, 6) if (i, j) not in done]
    assert pending
    resumed = gram_in(path)
    chunks = {k for tile in pending for k in tile}
    assert resumed.info.computed == sum(1 if k == 5 else 2 for k in chunks) < N
    assert torch.equal(resumed.matrix, whole)


def test_the_cache_of_jacobians_is_left_alone(tmp_path):
    mrviz.ntk_gram(make(), images())
    gram = gram_in(tmp_path / "gram")
    assert (gram.info.computed, gram.info.cached) == (N, 0)


def test_memory_is_not_asked_for(tmp_path, monkeypatch, whole):
    monkeypatch.setattr("mrviz.ntk.plan.available_bytes", lambda device: 4000)
    with pytest.raises(mrviz.ResourceError, match=r"store=path\) keeps it on disk"):
        mrviz.ntk_gram(make(), images(), chunk_size=2, progress=False)
    assert torch.equal(gram_in(tmp_path / "gram").matrix, whole)


def test_what_was_left_open_is_as_in_the_beginning(tmp_path):
    model = make(nn.Sequential(nn.ConvTranspose2d(1, 1, 3)))
    options = {"model": model, "chunk_size": None}
    first = gram_in(tmp_path / "gram", memory=3000, **options)
    second = gram_in(tmp_path / "gram", memory=10**9, **options)
    assert first.info.chunk_size == second.info.chunk_size < N
    by_products = gram_in(tmp_path / "products", memory=10, **options)
    assert by_products.info.method == "products"
    again = gram_in(tmp_path / "products", memory=10**9, **options)
    assert (again.info.method, again.info.why) == ("products", "as the store was begun")


def test_changes_of_the_result_stay_out_of_the_file(finished, whole):
    gram_in(finished).matrix.zero_()
    assert torch.equal(gram_in(finished).matrix, whole)
    assert np.array_equal(np.load(finished / "matrix.npy"), whole.numpy())
    assert mrviz.spectrum(gram_in(finished)).order == 3 * N


def test_a_relative_path_and_a_folder_above_that_is_not_there(tmp_path, monkeypatch, whole):
    monkeypatch.chdir(tmp_path)
    assert torch.equal(gram_in("a/b/gram").matrix, whole)
    assert sorted(p.name for p in Path("a/b/gram").iterdir()) == [
        "journal.txt",
        "manifest.json",
        "matrix.npy",
    ]


def test_progress_reaches_its_totals(finished):
    os.utime(finished / "matrix.npy")  # somebody may have written to it
    calls = []
    gram = gram_in(finished, progress=lambda *call: calls.append(call))
    assert calls[0] == (0, 21, "checking the store") and calls[-1] == (21, 21, "checking the store")
    assert gram.info.computed == 0
    calls.clear()
    gram_in(finished, progress=lambda *call: calls.append(call))
    assert calls == [], "sealed again"


# Another Gram


def frozen_bias():
    program = Linear(CANVAS, IMAGE)
    program.bias.requires_grad_(False)
    return program


def other_gain():
    net = Net()
    net.gain = 1.01
    return net


def other_weight():
    net = Net()
    with torch.no_grad():
        net.net[0].weight[0, 0, 0, 0] += 1e-9
    return net


OTHERS = {
    "weights": ({"model": make(net=other_weight())}, "the source has another structure"),
    "attribute": ({"model": make(net=other_gain())}, "gives other outputs for the first sample"),
    "seed": ({"model": make(Linear(CANVAS, IMAGE, seed=1))}, "the program has another type"),
    "frozen": ({"model": make(frozen_bias())}, "the program has another type"),
    "type": ({"model": make(Border(CANVAS, IMAGE))}, "the program has another type"),
    "mapping": ({"model": make(mapping=[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])}, "the output mapping"),
    "x1": ({"x1": images(seed=1)}, "x1 holds other samples"),
    "n": ({"x1": images(N - 1)}, "x1 holds other samples"),
    "x2": ({"x2": images(3)}, "x2 is not the same"),
    "reduce": ({"reduce": "trace"}, "reduce is 'full' there and 'trace' here"),
    "method": ({"method": "products"}, "method is 'structured' there and 'products' here"),
    "chunk_size": ({"chunk_size": 3}, "chunk_size is 2 there and 3 here"),
    "dtype": ({"dtype": torch.float32}, "dtype is 'float64' there and 'float32' here"),
    "tf32": ({"tf32": True}, "tf32 is False there and True here"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_gram_is_refused_and_the_store_left_as_it_was(finished, case):
    options, message = OTHERS[case]
    before = {p.name: p.read_bytes() for p in finished.iterdir()}
    with pytest.raises(mrviz.InputError, match=f"{message}.*another path, or delete that folder"):
        gram_in(finished, **options)
    assert {p.name: p.read_bytes() for p in finished.iterdir()} == before


def test_another_capacity_is_refused(tmp_path):
    x = uniform(3, 1, 2, 2)
    gram_in(tmp_path / "gram", make(Border(CANVAS, (1, 2, 2))), x)
    with pytest.raises(mrviz.InputError, match="capacity is 2 there and 1 here"):
        gram_in(tmp_path / "gram", make(Border(CANVAS, (1, 2, 2), width=1)), x)


def test_another_x2_is_refused(tmp_path):
    gram_in(tmp_path / "gram", x2=images(3))
    with pytest.raises(mrviz.InputError, match="x2 is not the same"):
        gram_in(tmp_path / "gram", x2=images(3, seed=2))
    with pytest.raises(mrviz.InputError, match="x2 is not the same"):
        gram_in(tmp_path / "gram")


def test_every_field_of_the_manifest_counts(finished):
    path = finished / "manifest.json"
    text = path.read_text()
    sound = json.loads(text)
    for key, value in sound["made_of"].items():
        for wrong in ("other", None if value is not None else 7):
            made_of = {**sound["made_of"], key: wrong}
            path.write_text(json.dumps({**sound, "made_of": made_of}))
            with pytest.raises(mrviz.InputError, match="holds another Gram"):
                gram_in(finished, method="structured")
    path.write_text(json.dumps({**sound, "made_of": {}}))
    with pytest.raises(mrviz.InputError, match="holds another Gram"):
        gram_in(finished)
    for wrong in ([], [0.0, 0.0, 0.0], sound["outputs"][:2]):
        path.write_text(json.dumps({**sound, "outputs": wrong}))
        with pytest.raises(mrviz.InputError, match="gives other outputs"):
            gram_in(finished)
    path.write_text(json.dumps({**sound, "format": 2}))
    with pytest.raises(mrviz.InputError, match="written by a newer mrviz"):
        gram_in(finished)
    path.write_text(text)
    assert gram_in(finished).info.computed == 0


def test_the_last_bits_of_outputs_do_not_count(finished):
    """Another processor rounds differently; the run can still go on there."""
    path = finished / "manifest.json"
    sound = json.loads(path.read_text())
    sound["outputs"] = [value * (1 + 1e-12) for value in sound["outputs"]]
    path.write_text(json.dumps(sound))
    assert gram_in(finished).info.computed == 0


# Damage


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"kind": "web app"}', '{"kind": 3', "\x00"]
)
def test_a_manifest_that_is_damaged_or_not_ours(finished, text):
    matrix = (finished / "matrix.npy").read_bytes()
    (finished / "manifest.json").write_text(text)
    with pytest.raises(mrviz.InputError, match="damaged, or not that of a Gram"):
        gram_in(finished)
    assert (finished / "matrix.npy").read_bytes() == matrix


def test_a_manifest_that_is_lost(finished):
    (finished / "manifest.json").unlink()
    with pytest.raises(mrviz.InputError, match=r"other files and no manifest\.json"):
        gram_in(finished)


@pytest.mark.parametrize("where", ["upper", "lower", "diagonal"])
def test_an_altered_tile_is_computed_again(finished, whole, where):
    at = {"upper": (1, 20), "lower": (20, 1), "diagonal": (3, 4)}[where]
    matrix = np.load(finished / "matrix.npy", mmap_mode="r+")
    matrix[at] += 1e-12
    matrix.flush()
    resumed = gram_in(finished)
    assert torch.equal(resumed.matrix, whole)
    assert "20 of 21 tiles" in resumed.info.notes[0]
    assert resumed.info.notes[1] == "1 tiles of the store were damaged and computed again"
    assert resumed.info.computed == (2 if where == "diagonal" else 4)
    assert gram_in(finished).info.computed == 0


@pytest.mark.parametrize("size", [0, 10, 128, 4000, -8, None])
def test_a_matrix_file_cut_short_or_lost(finished, whole, size):
    path = finished / "matrix.npy"
    if size is None:
        path.unlink()
    else:
        os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    resumed = gram_in(finished)
    assert torch.equal(resumed.matrix, whole)
    assert resumed.info.computed > 0
    assert np.array_equal(np.load(path), whole.numpy())


def test_a_damaged_header_and_a_longer_file(finished, whole):
    path = finished / "matrix.npy"
    with path.open("r+b") as file:
        file.write(b"\x00" * 20)
        file.seek(0, os.SEEK_END)
        file.write(b"more")
    resumed = gram_in(finished)
    assert resumed.info.computed == 0
    assert np.array_equal(np.load(path), whole.numpy())


@pytest.mark.parametrize("keep", [0, 1, 7, 30, 100, 400])
def test_a_journal_cut_short(finished, whole, keep):
    os.truncate(finished / "journal.txt", keep)
    assert torch.equal(gram_in(finished).matrix, whole)
    assert gram_in(finished).info.computed == 0


def test_a_journal_that_is_lost(finished, whole):
    (finished / "journal.txt").unlink()
    resumed = gram_in(finished)
    assert resumed.info.computed == N and resumed.info.notes == ()
    assert torch.equal(resumed.matrix, whole)


def test_random_damage_never_reaches_the_result(finished, whole):
    chance = random.Random(0)
    expected = gram_in(finished).info
    for _ in range(40):
        path = finished / chance.choice(["journal.txt", "matrix.npy"])
        with path.open("r+b") as file:
            for _ in range(chance.randint(1, 3)):
                file.seek(chance.randrange(path.stat().st_size))
                file.write(bytes([chance.randrange(256)]))
        gram = gram_in(finished)
        assert torch.equal(gram.matrix, whole)
        assert gram.info.trace == expected.trace
        assert gram.info.symmetry_error == expected.symmetry_error


def test_nonsense_in_the_journal_is_passed_over(tmp_path, whole):
    path = tmp_path / "gram"
    cancelled_after(5, path)
    with (path / "journal.txt").open("ab") as file:
        file.write(
            b"\nhello\n0 0 x y\n99 99 1 0.0\n-1 0 1 0.0\n\xff\xfe\n0 0 12 nan\n5 5 1 0.0\n1 2 3"
        )
    resumed = gram_in(path)
    assert torch.equal(resumed.matrix, whole)
    assert "2 tiles of the store were damaged" in resumed.info.notes[1]


# Folders


def test_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(mrviz.InputError, match="holds other files"):
        gram_in(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_matrix_of_somebody_else(tmp_path):
    np.save(tmp_path / "matrix.npy", np.eye(3))
    with pytest.raises(mrviz.InputError, match="holds other files"):
        gram_in(tmp_path)
    assert np.array_equal(np.load(tmp_path / "matrix.npy"), np.eye(3))


def test_an_empty_folder_and_one_killed_before_its_manifest(tmp_path, whole):
    assert torch.equal(gram_in(tmp_path).matrix, whole)
    (tmp_path / "manifest.json").rename(tmp_path / "manifest.json.new")
    (tmp_path / "journal.txt").write_text("")
    assert torch.equal(gram_in(tmp_path).matrix, whole)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "gram"):
        with pytest.raises(mrviz.InputError, match="cannot be used"):
            gram_in(path)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("path", ["", 3, True])
def test_something_that_is_no_path(path):
    with pytest.raises(mrviz.InputError, match="must be the path of a folder"):
        gram_in(path)


def test_two_at_once_in_one_process(tmp_path, whole):
    path = tmp_path / "gram"
    refused = []

    def progress(done, total, label):
        if done == 3 and not refused:
            with pytest.raises(mrviz.InputError, match="in use by another computation"):
                gram_in(path)
            refused.append(True)

    assert torch.equal(gram_in(path, progress=progress).matrix, whole)
    assert refused


# Disks


@pytest.fixture
def full_disk(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    return monkeypatch


def test_a_full_disk_at_the_start(tmp_path, full_disk, whole):
    with pytest.raises(mrviz.ResourceError, match=r"33×33 needs 8\.63 KiB .* free: make room"):
        gram_in(tmp_path / "gram")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(mrviz.ResourceError):
        gram_in(tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
    full_disk.undo()
    assert torch.equal(gram_in(tmp_path / "gram").matrix, whole)


def test_a_full_disk_leaves_finished_work(finished, full_disk, whole):
    os.truncate(finished / "matrix.npy", 6000)
    with pytest.raises(mrviz.ResourceError, match="What is finished stays in place"):
        gram_in(finished)
    assert (finished / "matrix.npy").stat().st_size == 6000
    full_disk.undo()
    resumed = gram_in(finished)
    assert torch.equal(resumed.matrix, whole)
    assert "tiles came from the store" in resumed.info.notes[0]


def test_a_disk_that_fills_up_on_the_way(tmp_path, monkeypatch, whole):
    path = tmp_path / "gram"
    monkeypatch.setattr(store_module, "COMMIT_SECONDS", 0.0)
    real, calls = store_module.synchronise, []

    def fills_up(file):
        calls.append(file)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(store_module, "synchronise", fills_up)
    with pytest.raises(mrviz.ResourceError, match=r"disk of store=.* is full"):
        gram_in(path)
    monkeypatch.undo()
    resumed = gram_in(path)
    assert torch.equal(resumed.matrix, whole)
    assert "of 21 tiles came from the store" in resumed.info.notes[0]


@pytest.mark.parametrize("known", [True, False])
def test_a_system_that_cannot_reserve(tmp_path, monkeypatch, whole, known):
    if known:

        def refuse(*_):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    else:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert torch.equal(gram_in(tmp_path / "gram").matrix, whole)
    free = type("Usage", (), {"free": 8000})
    monkeypatch.setattr("mrviz.ntk.disk.shutil.disk_usage", lambda _: free)
    with pytest.raises(mrviz.ResourceError, match=r"7\.81 KiB are free"):
        gram_in(tmp_path / "other")


def test_a_small_disk(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount")
    try:
        with pytest.raises(mrviz.ResourceError, match=r"KiB are free: make room"):
            gram_in(tmp_path / "gram", x1=images(40))
        assert list(tmp_path.iterdir()) == []
        assert gram_in(tmp_path / "gram").order == 3 * N
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
