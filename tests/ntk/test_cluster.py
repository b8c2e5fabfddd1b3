"""Grams computed by the workers of a Dask cluster, and what happens when these go away."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import mrviz
from mrviz import mappings
from mrviz.ntk import cluster as cluster_module
from mrviz.ntk.cluster import ClusterTiles
from mrviz.ntk.plan import make_plan
from mrviz.programs import Border, Linear, linear_border
from tests.ntk.common import REDUCTIONS, close, conv_net, uniform

distributed = pytest.importorskip("distributed")

CANVAS, IMAGE = (1, 6, 6), (1, 4, 4)
N = 11


def make(program=None, net=None):
    source = mrviz.SourceModel(net or conv_net(CANVAS, 3, 1), CANVAS)
    return mrviz.ReprogrammedModel(source, program or Linear(CANVAS, IMAGE), mappings.Identity())


def images(n=N, seed=0):
    return uniform(n, *IMAGE, seed=seed)


def gram_on(client, model=None, x1=None, x2=None, **options):
    options = {"chunk_size": 2, "progress": False, **options}
    x1 = images() if x1 is None else x1
    return mrviz.ntk_gram(model or make(), x1, x2, client=client, **options)


@contextmanager
def cluster_of(n_workers, **options):
    options = {"threads_per_worker": 1, "dashboard_address": ":0", **options}
    with (
        distributed.LocalCluster(n_workers=n_workers, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def processes():
    with cluster_of(2) as client:
        yield client


@pytest.fixture(scope="module")
def threads():
    with cluster_of(1, processes=False, threads_per_worker=4) as client:
        yield client


@pytest.fixture
def lone():
    """A cluster that a test may destroy."""
    with cluster_of(1, processes=False) as client:
        yield client


def left_behind(client):
    """Plugins, tasks and results of ours on the workers."""
    names = client.run(lambda dask_worker: [n for n in dask_worker.plugins if "mrviz" in n])
    deadline = time.monotonic() + 10
    while any(client.has_what().values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    results = client.has_what()
    return [item for kept in (names, results) for items in kept.values() for item in items]


# Results


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_same_as_in_one_process(processes, reduce, method):
    options = {"reduce": reduce, "method": method}
    for x2 in (None, images(5, seed=1)):
        gram = gram_on(processes, x2=x2, **options)
        expected = mrviz.ntk_gram(make(), images(), x2, **options)
        assert close(gram.matrix, expected.matrix, 1e-10)
        assert gram.matrix.device.type == "cpu" and gram.matrix.is_contiguous()
        assert (gram.info.method, gram.info.device) == (method, "cpu")
        assert gram.info.accumulation == "float64"
        assert gram.info.epsilon == expected.info.epsilon
        if x2 is None:
            assert torch.equal(gram.matrix, gram.matrix.T)
            assert gram.info.trace == pytest.approx(expected.info.trace)
    assert left_behind(processes) == []


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
@pytest.mark.parametrize("program", [linear_border, Border])
def test_several_threads_in_one_worker(threads, program, method):
    model = make(program(CANVAS, IMAGE))
    expected = mrviz.ntk_gram(model, images(20), method=method).matrix
    for _ in range(3):
        assert close(
            gram_on(threads, model, images(20), method=method, chunk_size=2).matrix, expected, 1e-10
        )


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.net = conv_net(CANVAS, 3, 1)

    def forward(self, u):
        return self.net(self.drop(u))


def test_threads_do_not_end_each_others_eval_mode(threads):
    model = make(net=Noisy())
    model.train()
    expected = mrviz.ntk_gram(model, images(30)).matrix
    assert close(gram_on(threads, model, images(30), chunk_size=1).matrix, expected, 1e-10)
    assert model.source.module.drop.training


def test_float32_and_another_dtype_than_the_model(processes):
    expected = mrviz.ntk_gram(make(), images(), dtype=torch.float32).matrix
    gram = gram_on(processes, dtype=torch.float32)
    assert gram.info.dtype == "float32"
    assert close(gram.matrix, expected, 1e-6)


def test_functions_of_a_notebook_travel_too(processes):
    source = mrviz.SourceModel(conv_net(CANVAS, 3, 1), CANVAS, normalize=lambda u: 2 * u)
    model = mrviz.ReprogrammedModel(source, Linear(CANVAS, IMAGE), mappings.Identity())
    expected = mrviz.ntk_gram(model, images()).matrix
    assert close(gram_on(processes, model).matrix, expected, 1e-10)


def test_into_a_store_and_on_from_there(processes, tmp_path):
    expected = mrviz.ntk_gram(make(), images()).matrix
    flag = threading.Event()

    def stop(done, total, label):
        if done == 7:
            flag.set()

    with pytest.raises(mrviz.Cancelled):
        gram_on(processes, store=tmp_path / "gram", progress=stop, cancel=flag)
    second = gram_on(processes, store=tmp_path / "gram")
    assert close(second.matrix, expected, 1e-10)
    assert "7 of 21 tiles came from the store" in second.info.notes[0]
    alone = mrviz.ntk_gram(make(), images(), store=tmp_path / "gram", progress=False)
    assert torch.equal(alone.matrix, second.matrix) and alone.info.computed == 0


def test_progress_counts_tiles_from_the_start(processes):
    calls = []
    gram_on(processes, progress=lambda *call: calls.append(call))
    assert calls == [(done, 21, "Gram tiles") for done in range(22)]


@pytest.mark.parametrize(("room", "computed"), [(6, 11), (2, 21), (0.1, 36)])
def test_factors_stay_within_the_memory(processes, room, computed):
    memory = int(room * 2 * 3 * 36 * 8)  # samples of a chunk, outputs, source inputs, bytes
    gram = gram_on(processes, memory=memory)
    mrviz.ntk.cache.limit = 0
    local = mrviz.ntk_gram(make(), images(), chunk_size=2, memory=memory, method="structured")
    assert close(gram.matrix, local.matrix, 1e-10)
    assert gram.info.computed == local.info.computed == computed


def test_few_tiles_are_on_their_way_at_a_time(processes):
    plan = make_plan(make(), images(12), chunk_size=1)
    most = 0
    with ClusterTiles(plan, processes, "cpu", None, None, None) as tiles:
        for _ in tiles(plan.tiles, False):
            most = max(most, len(tiles._flying))
    assert 1 < most <= 4
    assert left_behind(processes) == []


# Devices and faults of the caller


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_the_device_is_looked_for_on_the_worker(processes, monkeypatch):
    with pytest.raises(mrviz.DeviceError, match="no usable NVIDIA GPU here"):
        gram_on(processes, device="cuda")
    with pytest.raises(mrviz.DeviceError, match="not a device PyTorch knows"):
        gram_on(processes, device="gpu")
    assert left_behind(processes) == []


@pytest.mark.parametrize("client", ["tcp://127.0.0.1:8786", 2, True, object()])
def test_something_that_is_no_client(client):
    with pytest.raises(mrviz.InputError, match=r"client must be a dask\.distributed\.Client"):
        gram_on(client)


def test_a_client_that_is_closed_or_asynchronous(lone):
    async def asynchronous():
        async with distributed.Client(lone.scheduler.address, asynchronous=True) as client:
            with pytest.raises(mrviz.InputError, match="not asynchronous"):
                gram_on(client)

    distributed.utils.sync(lone.loop, asynchronous)
    lone.close()
    with pytest.raises(mrviz.InputError, match="client is closed: connect a new one"):
        gram_on(lone)


def test_the_mistake_comes_before_dask_is_loaded():
    code = (
        "import sys, torch, mrviz; from torch import nn\n"
        "assert 'dask' not in sys.modules and 'distributed' not in sys.modules\n"
        "s = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))\n"
        "p = mrviz.programs.Linear((1, 2, 2), (1, 1, 1))\n"
        "m = mrviz.ReprogrammedModel(s, p, torch.eye(2))\n"
        "try: mrviz.ntk_gram(m, torch.rand(2, 1, 1, 1), client='here')\n"
        "except mrviz.InputError: print('distributed' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = conv_net(CANVAS, 3, 1)

    def forward(self, u):
        return self.net(u.detach())


class Late(nn.Module):
    """Fails for samples that come late, on a worker."""

    def __init__(self):
        super().__init__()
        self.net = conv_net(CANVAS, 3, 1)
        self.limit = None

    def forward(self, u):
        if self.limit is not None and float(u.detach().max()) > self.limit:
            raise ZeroDivisionError("too bright")
        return self.net(u)


def test_an_error_of_the_model_comes_back_as_itself(processes):
    with pytest.raises(mrviz.InputError, match="no gradient with respect to its input"):
        gram_on(processes, make(net=Detached()))
    net, x = Late(), images() / 10
    model = make(Border(CANVAS, IMAGE), net)
    x[-1] = 5.0
    net.limit = 2.0
    with pytest.raises(ZeroDivisionError, match="too bright"):
        gram_on(processes, model, x)
    assert left_behind(processes) == []


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = conv_net(CANVAS, 3, 1)
        self.lock = threading.Lock()

    def forward(self, u):
        return self.net(u)


def test_a_model_that_cannot_be_sent(processes):
    with pytest.raises(mrviz.InputError, match=r"cannot be sent to the workers .*_thread\.lock"):
        gram_on(processes, make(net=Locked()))
    assert left_behind(processes) == []


def test_a_module_that_the_workers_do_not_have(processes, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text(
        "from torch import nn\nclass Net(nn.Flatten):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import Net

    with pytest.raises(mrviz.InputError, match=r"No module named 'only_here'.*client\.upload_file"):
        gram_on(processes, make(net=Net()))
    assert left_behind(processes) == []


class Hungry(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = conv_net(CANVAS, 3, 1)
        self.limit = 1000

    def forward(self, u):
        if len(u) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.net(u)


def test_notes_of_the_workers_come_back(processes):
    net = Hungry()
    model = make(net=net)
    expected = mrviz.ntk_gram(model, images()).matrix
    net.limit = 1
    gram = gram_on(processes, model)
    assert close(gram.matrix, expected, 1e-10)
    assert gram.info.notes == ("out of memory with 2 samples at once, went on with 1",)


def test_cancelled(processes):
    flag = threading.Event()

    def stop(done, total, label):
        assert done <= 3
        if done == 3:
            flag.set()

    with pytest.raises(mrviz.Cancelled):
        gram_on(processes, progress=stop, cancel=flag)
    assert left_behind(processes) == []
    with pytest.raises(mrviz.Cancelled):
        gram_on(processes, cancel=flag)
    assert left_behind(processes) == []


# Workers and clusters that go away


def test_a_worker_killed_in_the_middle():
    expected = mrviz.ntk_gram(make(), images(20)).matrix
    with cluster_of(2) as client:
        pids = client.run(os.getpid)
        killed = []

        def kill(done, total, label):
            time.sleep(0.01)
            if done == 15:
                killed.append(pids.popitem()[1])
                os.kill(killed[0], signal.SIGKILL)

        gram = gram_on(client, x1=images(20), progress=kill)
        assert killed
        assert close(gram.matrix, expected, 1e-10)
        client.wait_for_workers(2, timeout=60)
        assert killed[0] not in client.run(os.getpid).values()
        assert close(gram_on(client, x1=images(20)).matrix, expected, 1e-10)


def test_workers_that_come_late_and_go(lone):
    cluster = lone.cluster

    def scale(done, total, label):
        if done == 10:
            cluster.scale(3)
            lone.wait_for_workers(3, timeout=60)
        if done == 40:
            lone.retire_workers(list(lone.nthreads())[:2])

    gram = gram_on(lone, x1=images(20), progress=scale)
    assert close(gram.matrix, mrviz.ntk_gram(make(), images(20)).matrix, 1e-10)


class Deadly(nn.Module):
    """Ends its process where it was told to, but not where it was made."""

    def __init__(self):
        super().__init__()
        self.net = conv_net(CANVAS, 3, 1)
        self.home = os.getpid()

    def forward(self, u):
        if os.getpid() != self.home:
            os._exit(1)
        return self.net(u)


def test_a_model_that_ends_its_workers():
    with (
        distributed.worker.dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster_of(1) as client,
        pytest.raises(mrviz.errors.ClusterError, match=r"after 0 of 21 tiles .*want of memory"),
    ):
        gram_on(client, make(net=Deadly()))


@pytest.mark.parametrize("stored", [False, True])
def test_a_cluster_that_is_lost(lone, tmp_path, stored):
    def close_it(done, total, label):
        if done == 5:
            lone.cluster.close()

    options = {"store": tmp_path / "gram"} if stored else {}
    advice = "call again with another client" if stored else "with store=path the next call"
    with pytest.raises(mrviz.errors.ClusterError, match=f"after . of 21 tiles.*{advice}"):
        gram_on(lone, progress=close_it, **options)
    if stored:
        gram = mrviz.ntk_gram(make(), images(), progress=False, **options)
        assert "tiles came from the store" in gram.info.notes[0]
        assert close(gram.matrix, mrviz.ntk_gram(make(), images()).matrix, 1e-10)


def test_a_cluster_without_workers(monkeypatch):
    monkeypatch.setattr(cluster_module, "NO_WORKER_SECONDS", 0.5)
    with (
        cluster_of(0, processes=False) as client,
        pytest.raises(mrviz.errors.ClusterError, match="has had no worker for"),
    ):
        gram_on(client)
