"""Every path of the kernel engine on a GPU against the CPU in float64."""

import pytest
import torch

import mrviz
from mrviz import mappings, programs
from mrviz.ntk import capacity_grams, jacobian_gram, sketch_grams
from tests.ntk.common import close, conv_net, dense_net, fill, uniform

pytestmark = pytest.mark.gpu

CANVAS, IMAGE = (3, 12, 12), (1, 6, 6)
PROGRAMS = {
    "border": lambda: programs.Border(CANVAS, IMAGE),
    "overlay": lambda: programs.Overlay(CANVAS, IMAGE),
    "linear": lambda: programs.Linear(CANVAS, IMAGE),
    "linear_border": lambda: programs.linear_border(CANVAS, IMAGE),
    "low_rank": lambda: programs.LowRankLinear(CANVAS, IMAGE, rank=4),
    "convolution": lambda: programs.Convolution(CANVAS, IMAGE),
    "scale": lambda: programs.Scale(CANVAS, IMAGE),
    "own": lambda: torch.nn.Sequential(
        torch.nn.Upsample(scale_factor=2), torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.Tanh()
    ),
}
SOURCES = {"cnn": conv_net, "dnn": dense_net}
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}


def make(program, source="cnn", mapping=None):
    net = SOURCES[source](CANVAS, 4, 1)
    model = mrviz.SourceModel(net, CANVAS)
    return mrviz.ReprogrammedModel(
        model, PROGRAMS[program]().double(), mapping or mappings.Identity()
    )


def on_both(model, device, dtype, function):
    """What the function gives on the device in a dtype, and on the CPU in float64."""
    return function(device=device, dtype=dtype), function(device="cpu", dtype=torch.float64)


def agree(found, exact, dtype):
    assert close(found.matrix.cpu(), exact.matrix, TOLERANCE[dtype])
    assert found.matrix.dtype == torch.float64


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("reduce", ["full", "trace", "sum", 1])
@pytest.mark.parametrize("program", PROGRAMS)
def test_grams(device, program, reduce, dtype):
    model, x = make(program), uniform(9, *IMAGE)

    def gram(**where):
        return mrviz.ntk_gram(model, x, reduce=reduce, chunk_size=4, progress=False, **where)

    found, exact = on_both(model, device, dtype, gram)
    agree(found, exact, dtype)
    assert found.info.device.startswith(device) and found.matrix.device.type == device
    assert model.source.device.type == "cpu"


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
@pytest.mark.parametrize("source", SOURCES)
def test_methods_and_cross_grams(device, source, method):
    model, x = make("linear", source), uniform(7, *IMAGE)

    def gram(**where):
        return mrviz.ntk_gram(model, x[:3], x, method=method, progress=False, **where)

    agree(*on_both(model, device, torch.float64, gram), torch.float64)


def test_a_trainable_head(device):
    model = make("border", mapping=mappings.LinearHead(mappings.Identity(3)))

    def gram(**where):
        return mrviz.ntk_gram(model, uniform(5, *IMAGE), progress=False, **where)

    agree(*on_both(model, device, torch.float32, gram), torch.float32)


def test_inputs_and_models_that_are_on_the_device_already(device):
    model, x = make("linear_border"), uniform(5, *IMAGE)
    exact = mrviz.ntk_gram(model, x, progress=False)
    moved = model.to(device)
    agree(mrviz.ntk_gram(moved, x.to(device), progress=False), exact, torch.float64)
    agree(mrviz.ntk_gram(moved, x, progress=False), exact, torch.float64)
    assert moved.predict(x).device.type == device


@pytest.mark.parametrize("memory", [1, 10_000])
def test_jacobians_that_do_not_fit_the_budget(device, memory):
    model, x = make("overlay"), uniform(6, *IMAGE)

    def gram(**where):
        return mrviz.ntk_gram(model, x, chunk_size=2, memory=memory, progress=False, **where)

    agree(*on_both(model, device, torch.float64, gram), torch.float64)


def test_gamma_and_sweeps(device):
    model, x = make("linear"), uniform(5, *IMAGE)
    found = jacobian_gram(model, x, device=device, progress=False)
    agree(found, jacobian_gram(model, x, progress=False), torch.float64)
    for program in ("border", "low_rank", "convolution"):
        model = make(program)
        there = dict(capacity_grams(model, x, device=device, progress=False))
        here = dict(capacity_grams(model, x, progress=False))
        assert there.keys() == here.keys()
        for capacity, gram in there.items():
            agree(gram, here[capacity], torch.float64)


def test_sketches(device):
    model, x = make("border"), uniform(16, *IMAGE)
    there = list(sketch_grams(model, x, directions=2, device=device, progress=False))
    here = list(sketch_grams(model, x, directions=2, progress=False))
    for found, exact in zip(there, here, strict=True):
        agree(found.gram, exact.gram, torch.float64)
        assert found.trace == pytest.approx(exact.trace, rel=1e-10)


@pytest.mark.parametrize("program", ["border", "linear"])
def test_spectra(device, program):
    model, x = make(program), uniform(12, *IMAGE)
    found = mrviz.spectrum(mrviz.ntk_gram(model, x, device=device, progress=False))
    exact = mrviz.spectrum(mrviz.ntk_gram(model, x, progress=False))
    assert torch.allclose(
        found.eigenvalues.cpu(), exact.eigenvalues, atol=1e-11 * exact.largest, rtol=0
    )
    assert found.residual < 1e-10 and found.rank == exact.rank


def test_conditions(device):
    x = uniform(30, *IMAGE).numpy()
    y = torch.arange(30).numpy() % 4
    target = mrviz.Target(x, y, x, y)
    model = make("linear")
    there = mrviz.transfer_conditions(model, target, n=10, device=device, progress=False)
    here = mrviz.transfer_conditions(model, target, n=10, progress=False)
    assert [(c.id, c.status) for c in there] == [(c.id, c.status) for c in here]


def test_tf32_raises_the_noise_floor(device):
    model, x = make("linear"), uniform(4, *IMAGE)
    fast = mrviz.ntk_gram(model, x, device=device, dtype=torch.float32, tf32=True, progress=False)
    full = mrviz.ntk_gram(model, x, device=device, dtype=torch.float32, progress=False)
    if device == "cuda":
        assert fast.info.epsilon == 2.0**-11 > full.info.epsilon
        assert mrviz.spectrum(fast).floor > 1000 * mrviz.spectrum(full).floor
    assert not torch.backends.cuda.matmul.allow_tf32
    assert close(fast.matrix, full.matrix, 1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no usable NVIDIA GPU")
def test_too_little_memory_on_the_gpu_halves_the_chunk():
    canvas = (3, 96, 96)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(fill(conv_net(canvas, 8, width=64).float()), canvas),
        programs.Overlay(canvas, IMAGE),
        mappings.Identity(),
    )
    x = uniform(64, *IMAGE).float()
    exact = mrviz.ntk_gram(model, x, reduce="trace", device="cuda", progress=False)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    room = torch.cuda.memory_allocated() + (512 << 20)
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        with pytest.warns(UserWarning, match="out of memory"):
            tight = mrviz.ntk_gram(
                model, x, reduce="trace", device="cuda", chunk_size=64, progress=False
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert tight.info.notes and close(tight.matrix, exact.matrix, 1e-5)


@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("program", ["border", "linear", "own"])
def test_operators(device, program, memory):
    model, x = make(program), uniform(8, *IMAGE)
    exact = mrviz.ntk_gram(model, x, progress=False).matrix
    operator = mrviz.ntk_operator(model, x, device=device, memory=memory, progress=False)
    v = uniform(len(exact), 3, seed=5)
    assert close((operator @ v.to(device)).cpu(), exact @ v, 1e-10)
    assert operator.to_scipy() @ v.numpy() == pytest.approx((exact @ v).numpy(), rel=1e-8)
    found = mrviz.extreme_eigenvalues(operator, k=3, progress=False)
    expected = torch.linalg.eigvalsh(exact).flip(0)[:3]
    assert torch.allclose(found.eigenvalues.cpu(), expected, rtol=1e-8)


def test_regression_and_density(device):
    model, x = make("linear"), uniform(10, *IMAGE)
    y = uniform(10, 4, seed=3)
    there = mrviz.ntk_operator(model, x, device=device, progress=False)
    here = mrviz.ntk_operator(model, x, progress=False)
    a, b = (mrviz.kernel_regression(op, y, ridge=0.1, progress=False) for op in (there, here))
    assert a.converged and close(a.coefficients.cpu(), b.coefficients, 1e-6)
    a, b = (mrviz.spectral_density(op, probes=3, steps=10, progress=False) for op in (there, here))
    assert a.trace.value == pytest.approx(b.trace.value, rel=1e-8)


@pytest.mark.parametrize("reduce", ["full", "trace"])
@pytest.mark.parametrize("family", ["dnn", "cnn", "resnet"])
def test_source_kernels(device, family, reduce):
    source = mrviz.load_source(family, width=4, input_size=8, progress=False)
    u = uniform(5, 1, 8, 8)

    def gram(**where):
        return mrviz.source_ntk(source, u, reduce=reduce, progress=False, **where)

    for dtype in TOLERANCE:
        agree(*on_both(source, device, dtype, gram), dtype)


@pytest.mark.parametrize("pooling", ["flatten", "gap"])
def test_infinite_width(device, pooling):
    u = uniform(4, 1, 6, 6)

    def gram(where):
        return mrviz.infinite_width_ntk(
            u, family="cnn", depth=2, pooling=pooling, device=where, progress=False
        )

    agree(gram(device), gram("cpu"), torch.float64)


def test_a_store(device, tmp_path):
    model, x = make("overlay"), uniform(6, *IMAGE)
    options = {"device": device, "chunk_size": 2, "progress": False}
    found = mrviz.ntk_gram(model, x, store=tmp_path / "gram", **options)
    again = mrviz.ntk_gram(model, x, store=tmp_path / "gram", **options)
    agree(found, mrviz.ntk_gram(model, x, progress=False), torch.float64)
    assert torch.equal(found.matrix, again.matrix) and again.info.computed == 0
