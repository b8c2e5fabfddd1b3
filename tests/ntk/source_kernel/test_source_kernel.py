"""The source's own kernel against brute force: every layer type, form, reduction and split."""

import threading

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mrviz
from mrviz.ntk.source_kernel import gram_cache, layers, layerwise, source_ntk
from mrviz.ntk.source_kernel.infinite_width import infinite_width_ntk
from mrviz.ntk.source_kernel.layers import WeightLayer
from mrviz.sources.families import ResidualBlock
from tests.ntk.common import (
    REDUCTIONS,
    close,
    contracted,
    conv_net,
    dense_net,
    fill,
    smallest,
    uniform,
)

SHAPE = (2, 6, 6)


@pytest.fixture(autouse=True)
def _fresh_results():
    gram_cache.clear()
    yield
    gram_cache.clear()


def brute(source, x, reduce, x2=None):
    """Gram of the Jacobian by all parameters of the module, everything written out."""
    named = {k: p for k, p in source.named_parameters() if k.startswith("module.")}

    def jacobian(x):
        parts = jacrev(lambda theta: functional_call(source, theta, (x,)))(named)
        return torch.cat([j.detach().reshape(*j.shape[:2], -1) for j in parts.values()], 2)

    return contracted(jacobian(x), jacobian(x if x2 is None else x2), reduce)


class Shared(nn.Module):
    """One convolution called on two scales, and the same dense layer for every row."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.rows, self.out = nn.Linear(6, 3), nn.Linear(4, 4)

    def forward(self, x):
        h = torch.tanh(self.b(torch.tanh(self.a(x))))
        h = h + self.rows(h).mean(3, keepdim=True)
        return self.out(torch.tanh(self.b(F.avg_pool2d(h, 2))).mean((2, 3)))


class Tied(nn.Module):
    """Weights used outside their layer, a layer that is never called, a bare parameter."""

    def __init__(self):
        super().__init__()
        self.a, self.unused, self.out = nn.Linear(72, 6), nn.Linear(3, 3), nn.Linear(6, 4)
        self.gain = nn.Parameter(torch.tensor(1.3))

    def forward(self, x):
        h = torch.tanh(self.a(x.flatten(1)))
        h = h + F.linear(torch.sin(F.linear(h, self.a.weight.T)), self.a.weight)
        return self.out(h * self.gain)


class Attention(nn.Module):
    """Patches as tokens, LayerNorm, self-attention, a position embedding."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Conv2d(2, 8, 2, 2), nn.LayerNorm(8)
        self.mix, self.attend = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.position, self.out = nn.Parameter(torch.zeros(1, 9, 8)), nn.Linear(8, 4)

    def forward(self, x):
        h = self.embed(x).flatten(2).transpose(1, 2) + self.position
        h = h + torch.tanh(self.mix(self.norm(h)))
        return self.out((h + self.attend(h, h, h)[0]).mean(1))


class Recurrent(nn.Module):
    """A module that returns a tuple, and layers that see time before samples."""

    def __init__(self):
        super().__init__()
        self.first, self.cell, self.out = nn.Linear(12, 5), nn.GRU(5, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.first(x.transpose(1, 2).flatten(2).transpose(0, 1))
        return self.out(self.cell(h)[0])[-1]


class OwnPadding(nn.Conv2d):
    """A convolution that pads inside its forward, one more at the end, as EfficientNets do."""

    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Scaled(nn.Linear):
    """A dense layer whose formula is another one."""

    def forward(self, x):
        return F.linear(x, self.weight.exp(), self.bias)


def batch_norm(channels):
    norm = nn.BatchNorm2d(channels)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return norm


def head(values):
    return nn.Flatten(), nn.Linear(values, 4)


NETWORKS = {
    "linear": lambda: nn.Sequential(*head(72)),
    "dense": lambda: nn.Sequential(
        *(nn.Flatten(), nn.Linear(72, 9), nn.Tanh(), nn.Linear(9, 4, bias=False))
    ),
    "in place": lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.SiLU(inplace=True), *head(48)),
    "stride": lambda: nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=2), nn.Tanh(), *head(48)),
    "dilation": lambda: nn.Sequential(
        *(nn.Conv2d(2, 3, (2, 3), padding=(1, 0), dilation=(3, 2)), nn.Tanh(), *head(30))
    ),
    "groups": lambda: nn.Sequential(
        *(nn.Conv2d(2, 6, 3, groups=2, bias=False), nn.Tanh()),
        *(nn.Conv2d(6, 6, 3, groups=3), nn.Tanh(), *head(24)),
    ),
    "same": lambda: nn.Sequential(
        *(nn.Conv2d(2, 3, (2, 4), padding="same", dilation=2), nn.Tanh(), *head(108))
    ),
    "padding modes": lambda: nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Tanh()),
        *(nn.Conv2d(3, 3, 3, padding=2, padding_mode="reflect"), nn.Tanh(), *head(192)),
    ),
    "series": lambda: nn.Sequential(
        *(nn.Flatten(2), nn.Conv1d(2, 6, 5, stride=3, dilation=2, padding=2, groups=2), nn.Tanh()),
        *(nn.Conv1d(6, 3, 3, padding="valid"), *head(27)),
    ),
    "norms": lambda: nn.Sequential(
        *(nn.Conv2d(2, 4, 3), batch_norm(4), nn.PReLU(), nn.GroupNorm(2, 4)),
        *(nn.ConvTranspose2d(4, 3, 2), *head(75)),
    ),
    "residual": lambda: nn.Sequential(
        ResidualBlock(2, 4, 2, 0.7), ResidualBlock(4, 4, 1, 0.7), nn.AdaptiveAvgPool2d(1), *head(4)
    ),
    "depthwise": lambda: nn.Sequential(
        *(nn.Conv2d(2, 8, 1, bias=False), batch_norm(8), nn.ReLU6()),
        *(OwnPadding(8, 8, 4, stride=2, groups=8, bias=False), batch_norm(8), nn.ReLU6()),
        *(nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), *head(4)),
    ),
    "weight norm": lambda: nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(72, 5)), nn.Tanh(), *head(5)
    ),
    "own formula": lambda: nn.Sequential(nn.Flatten(), Scaled(72, 5), nn.Tanh(), *head(5)),
    "shared": Shared,
    "tied": Tied,
    "attention": Attention,
    "recurrent": Recurrent,
}


def make(name, **options):
    torch.manual_seed(1)
    return mrviz.SourceModel(fill(NETWORKS[name]().double(), 1), SHAPE, name=name, **options)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", NETWORKS)
def test_sum_over_layers_is_the_gram_of_the_whole_jacobian(name):
    source = make(name, normalize=((0.5,), (0.3,)))
    x, y = uniform(4, *SHAPE), uniform(3, *SHAPE, seed=1)
    for reduce in REDUCTIONS:
        gram = source_ntk(source, x, reduce=reduce)
        assert close(gram.matrix, brute(source, x, reduce), 1e-12)
        assert close(source_ntk(source, x, y, reduce=reduce).matrix, brute(source, x, reduce, y))
        assert (gram.n, gram.outputs, gram.reduce, gram.symmetric) == (4, 4, reduce, True)
        assert torch.equal(gram.matrix, gram.matrix.T)
    assert gram.info.n_parameters == sum(p.numel() for p in source.module.parameters())


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", [*list(NETWORKS)[:9], "residual", "shared"])
def test_linear_and_convolution_layers_are_never_written_out_whole(name):
    assert "written out" not in source_ntk(make(name), uniform(2, *SHAPE)).info.why


EXPLICIT = {
    "linear": "linear and convolution layers: 1 with one position, as a scalar kernel times that "
    "of output gradients",
    "norms": "; written out: 8 parameters of 1 × BatchNorm2d; written out: 1 parameters of "
    "1 × PReLU; written out: 8 parameters of 1 × GroupNorm; written out: 51 parameters of "
    "1 × ConvTranspose2d",
    "depthwise": "written out: 32 parameters of 2 × BatchNorm2d",
    "own formula": "written out: 365 parameters of 1 × Scaled",
    "shared": ", 3 by explicit gradients, smaller than what they are made of",
    "tied": "written out: 1 parameters of 1 × Tied; written out: 438 parameters of 1 × the whole "
    "source; 12 parameters without gradient",
}


@pytest.mark.parametrize(("name", "says"), EXPLICIT.items())
def test_info_says_how_the_layers_were_taken(name, says):
    gram = source_ntk(make(name), uniform(4, *SHAPE))
    assert gram.info.method == "layers" and gram.info.why.endswith(says)


@pytest.mark.parametrize("form", ["stored", "sliced", "gram"])
@pytest.mark.parametrize("name", ["dense", "groups", "series", "shared", "depthwise"])
@pytest.mark.parametrize("slice_bytes", [1, 20_000, 1 << 26])
def test_all_forms_agree(name, form, slice_bytes, monkeypatch):
    monkeypatch.setattr(WeightLayer, "best_form", lambda *_: form)
    monkeypatch.setattr(layers, "SLICE_BYTES", slice_bytes)
    source, x = make(name), uniform(5, *SHAPE)
    for reduce in REDUCTIONS:
        found = source_ntk(source, x, reduce=reduce, chunk_size=3).matrix
        assert close(found, brute(source, x, reduce), 1e-12)
        gram_cache.clear()


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
@pytest.mark.parametrize("room", [0, 1 << 30])
def test_chunks_do_not_change_the_result(chunk_size, room, monkeypatch):
    monkeypatch.setattr(layerwise, "default_memory", lambda device: room)
    source, x, y = make("residual"), uniform(5, *SHAPE), uniform(3, *SHAPE, seed=1)
    for reduce in REDUCTIONS:
        found = source_ntk(source, x, reduce=reduce, chunk_size=chunk_size)
        cross = source_ntk(source, x, y, reduce=reduce, chunk_size=chunk_size)
        assert close(found.matrix, brute(source, x, reduce), 1e-12)
        assert close(cross.matrix, brute(source, x, reduce, y), 1e-12)
        assert found.info.chunk_size == chunk_size


def test_output_rows_of_a_trace_are_taken_in_parts_where_memory_asks_for_it(monkeypatch):
    source, x, calls = make("shared"), uniform(5, *SHAPE), []
    expected = source_ntk(source, x).matrix
    gram_cache.clear()
    monkeypatch.setattr(layerwise, "CHUNK_BYTES", 30_000)
    found = source_ntk(source, x, progress=lambda *call: calls.append(call))
    assert close(found.matrix, expected, 1e-13)
    assert found.info.chunk_size == 4
    assert calls[0] == (0, 12, "source kernel")
    assert calls[-1] == (12, 12, "source kernel, output 4 of 4"), (
        "three tiles for each of four rows"
    )


def layer_of(module, x):
    with torch.no_grad():
        return WeightLayer(module, [x], [module(x).shape])


def test_the_cheapest_form_is_chosen():
    trace, full, one = (mrviz.ntk.Reduction(r, 10) for r in ("trace", "full", 3))
    early = layer_of(nn.Conv2d(3, 16, 3, padding=1), torch.rand(1, 3, 32, 32))
    late = layer_of(nn.Conv2d(256, 256, 3, padding=1), torch.rand(1, 256, 4, 4))
    middle = layer_of(nn.Conv2d(64, 64, 3, padding=1), torch.rand(1, 64, 16, 16))
    dense = layer_of(nn.Linear(512, 512), torch.rand(1, 512))
    for reduction, rows in ((trace, 10), (full, 10), (one, 1)):
        forms = [w.best_form(rows, reduction, 100, 50) for w in (early, middle, late, dense)]
        assert forms == ["stored", "sliced", "gram", "features"]


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self.values = max(self.values, *sizes, 0)
        return result


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_nothing_of_the_size_of_the_jacobian_is_ever_made(reduce, monkeypatch):
    monkeypatch.setattr(layers, "SLICE_BYTES", 1 << 18)
    network = nn.Sequential(
        *(nn.Conv2d(2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 128), nn.ReLU()),
        nn.Linear(128, 5),
    )
    source, x = mrviz.SourceModel(fill(network), SHAPE), uniform(20, *SHAPE).float()
    rows = mrviz.ntk.Reduction(reduce, 5).cotangents(x).shape[0]
    with Largest() as largest:
        gram = source_ntk(source, x, reduce=reduce)
    p = gram.info.n_parameters
    assert largest.values < max(2 * p + 1, 20 * rows * p / 10)


def test_nothing_about_the_source_changes():
    source, x = make("norms"), uniform(3, *SHAPE)
    source.train()
    before = source.fingerprint()
    source_ntk(source, x)
    assert source.fingerprint() == before and source.module.training
    assert not any(p.requires_grad for p in source.parameters())
    assert not any(m._forward_hooks for m in source.modules())


def test_float32_is_the_default_of_a_float32_source():
    source = mrviz.load_source("resnet", width=4, input_size=8, progress=False)
    x = uniform(4, 1, 8, 8).float()
    single, double = source_ntk(source, x), source_ntk(source, x, dtype=torch.float64)
    assert single.matrix.dtype == torch.float64
    assert (single.info.dtype, double.info.dtype) == ("float32", "float64")
    assert single.info.epsilon == 2**-24 and single.info.accumulation == "float64"
    assert close(single.matrix, double.matrix, 1e-5)
    assert not close(single.matrix, double.matrix, 1e-12)
    assert smallest(double.matrix) > 0
    assert double.info.trace == pytest.approx(float(double.matrix.trace()))


def test_a_second_call_finds_the_first_result():
    source, x = make("dense"), uniform(4, *SHAPE)
    first, second = source_ntk(source, x), source_ntk(source, x, chunk_size=2)
    assert (first.info.computed, first.info.cached) == (4, 0)
    assert (second.info.computed, second.info.cached) == (0, 4)
    assert second.info.why == first.info.why and torch.equal(first.matrix, second.matrix)
    second.matrix.zero_()
    first.matrix.zero_()
    assert float(source_ntk(source, x).matrix.norm()) > 0, "the caller's copy is his own"


def test_other_inputs_and_options_are_computed():
    source, x = make("dense"), uniform(4, *SHAPE)
    source_ntk(source, x)
    for changed in (
        {"reduce": "sum"},
        {"reduce": 0},
        {"dtype": torch.float32},
        {"x2": x[:2]},
        {"x": x[:3]},
        {"x": x.flip(0)},
    ):
        assert source_ntk(source, **{"x": x, **changed}).info.computed > 0, changed
    with torch.no_grad():
        source.module[1].weight.mul_(2)
    again = source_ntk(source, x)
    assert again.info.computed == 4
    assert close(again.matrix, brute(source, x, "trace"), 1e-12)


def test_kept_results_stay_below_the_limit(monkeypatch):
    monkeypatch.setattr(gram_cache, "limit", 2 * 4 * 4 * 8)
    source, x = make("dense"), uniform(4, *SHAPE)
    for reduce in ("trace", "sum", 0):
        source_ntk(source, x, reduce=reduce)
    assert gram_cache.n_bytes == gram_cache.limit
    assert source_ntk(source, x, reduce=0).info.computed == 0
    assert source_ntk(source, x, reduce="trace").info.computed == 4
    assert source_ntk(source, x, reduce="full").info.computed == 4
    assert source_ntk(source, x, reduce="full").info.computed == 4


def test_progress_and_cancellation():
    source, x, calls, flag = make("dense"), uniform(5, *SHAPE), [], threading.Event()
    source_ntk(source, x, chunk_size=2, progress=lambda *call: calls.append(call[:2]))
    assert calls == [(k, 6) for k in range(7)]
    gram_cache.clear()

    def stop(done, total, label):
        assert done <= 2
        if done == 2:
            flag.set()

    with pytest.raises(mrviz.Cancelled, match="cancel"):
        source_ntk(source, x, chunk_size=2, progress=stop, cancel=flag)
    with pytest.raises(mrviz.Cancelled):
        source_ntk(source, x, cancel=flag)
    assert gram_cache.n_bytes == 0


def test_cancelled_between_backward_passes():
    class Flag:
        asked = 0

        def is_set(self):
            self.asked += 1
            return self.asked > 3

    with pytest.raises(mrviz.Cancelled, match="source kernel"):
        source_ntk(make("dense"), uniform(5, *SHAPE), cancel=Flag())


class Hungry(nn.Module):
    """Runs out of memory with more than ``limit`` samples at once."""

    def __init__(self):
        super().__init__()
        self.net, self.limit = conv_net(SHAPE, 3), 1000

    def forward(self, x):
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.net(x)


def test_out_of_memory_shrinks_the_chunk_and_says_so():
    net, x = Hungry(), uniform(9, *SHAPE)
    source = mrviz.SourceModel(net, SHAPE)
    normal = source_ntk(source, x)
    gram_cache.clear()
    net.limit = 3
    with pytest.warns(UserWarning, match="out of memory with 9 samples at once, went on with 4"):
        found = source_ntk(source, x)
    assert close(found.matrix, normal.matrix, 1e-13)
    assert found.info.notes and not normal.info.notes


def test_explicit_gradients_that_do_not_fit_are_refused(monkeypatch):
    source, x = make("attention"), uniform(3, *SHAPE)
    monkeypatch.setattr(layerwise, "available_bytes", lambda device: 10_000)
    with pytest.raises(mrviz.ResourceError, match=r"376 parameters outside linear .* reduce='sum'"):
        source_ntk(source, x)
    assert source_ntk(source, x, reduce="sum").n == 3


class Frozen(nn.Module):
    """Hides its work from autograd."""

    def __init__(self):
        super().__init__()
        self.net = dense_net(SHAPE, 3)

    @torch.no_grad()
    def forward(self, x):
        return self.net(x)


class Moody(nn.Module):
    """Calls a layer twice for bright inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(72, 5), nn.Linear(5, 5)

    def forward(self, x):
        h = self.b(torch.tanh(self.a(x.flatten(1))))
        return self.b(h) if bool(x.max() > 2) else h


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Flatten(), "has no parameters"),
        (Frozen(), "no gradient with respect to its parameters"),
    ],
)
def test_sources_without_a_kernel_of_their_own(module, message):
    with pytest.raises(mrviz.InputError, match=message):
        source_ntk(mrviz.SourceModel(module, SHAPE), uniform(3, *SHAPE).float())


def test_a_source_that_changes_its_layers_from_input_to_input():
    source = mrviz.SourceModel(Moody(), SHAPE)
    with pytest.raises(mrviz.InputError, match="calls its layers in another way"):
        source_ntk(source, 5 * uniform(3, *SHAPE).float())


def test_derivatives_that_are_not_finite():
    source = mrviz.SourceModel(nn.Sequential(*head(72)), SHAPE, normalize=lambda u: u / (u - 7))
    x = uniform(3, *SHAPE).float()
    x[1, 0, 0, 0] = 7
    with pytest.raises(mrviz.InputError, match="NaN or infinite parameter derivatives"):
        source_ntk(source, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": torch.ones(3, *SHAPE, dtype=torch.int64)}, "floating point"),
        ({"x": torch.full((3, *SHAPE), torch.nan)}, "NaN"),
        ({"x": torch.ones(3, 2, 5, 6)}, "x holds samples of shape"),
        ({"x2": torch.ones(3, 2, 5, 6)}, "x2 holds samples of shape"),
        ({"kind": "analytic"}, "kind must be one of"),
        ({"reduce": 4}, "outside 0 to 3"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"dtype": torch.int32}, "floating-point type"),
        ({"source": nn.Linear(2, 3)}, r"pass model\.source"),
        ({"kind": "infinite-width", "dtype": torch.float32}, "in float64"),
    ],
)
def test_wrong_inputs(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        source_ntk(**{"source": make("dense"), "x": torch.ones(3, *SHAPE), **options})


@pytest.mark.parametrize(
    ("family", "depth"), [("dnn", 1), ("dnn", 2), ("dnn", 4), ("cnn", 1), ("cnn", 3)]
)
def test_infinite_width_of_the_families(family, depth):
    options = {} if (family, depth) == ("dnn", 1) else {"width": 5}
    source = mrviz.load_source(family, depth=depth, input_size=6, progress=False, **options)
    x, y = uniform(4, 1, 6, 6), uniform(3, 1, 6, 6, seed=1)
    kernel = infinite_width_ntk(2 * x - 1, family=family, depth=depth).matrix
    for reduce in ("trace", "sum", 7):
        gram = source_ntk(source, x, kind="infinite-width", reduce=reduce)
        assert close(gram.matrix, kernel, 1e-6), "float32 mean and std of the source"
        assert (gram.outputs, gram.reduce, gram.info.dtype) == (10, reduce, "float64")
    full = source_ntk(source, x, kind="infinite-width", reduce="full")
    eye = torch.eye(10, dtype=torch.float64)
    assert close(full.matrix, torch.kron(kernel, eye), 1e-6)
    assert full.info.trace == pytest.approx(float(full.matrix.trace()))
    cross = source_ntk(source, x, y, kind="infinite-width")
    expected = infinite_width_ntk(2 * x - 1, 2 * y - 1, family=family, depth=depth).matrix
    assert close(cross.matrix, expected, 1e-6)
    assert source_ntk(source, x, kind="infinite-width").info.computed == 0


def test_infinite_width_of_an_own_module_of_the_same_form():
    layers_ = [nn.Conv2d(2, 3, 3, padding="same", bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    module = nn.Sequential(*layers_, nn.Flatten(), nn.Linear(3, 4, bias=False))
    source, x = mrviz.SourceModel(module, SHAPE), uniform(4, *SHAPE)
    found = source_ntk(source, x, kind="infinite-width").matrix
    expected = infinite_width_ntk(x, family="cnn", depth=1, bias_std=0, pooling="gap").matrix
    assert close(found, expected, 1e-14)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Linear(5, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.ReLU(), nn.Linear(5, 4, bias=False)),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), *head(48)),
        nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *head(27)),
        Shared(),
    ],
)
def test_infinite_width_of_other_sources_is_refused(module):
    source = mrviz.SourceModel(module, SHAPE)
    with pytest.raises(mrviz.InputError, match="kind='empirical'"):
        source_ntk(source, uniform(3, *SHAPE), kind="infinite-width")


def test_layer_by_layer_a_wide_source_has_the_parts_of_the_infinite_width_kernel():
    """Weighed as the NTK parameterisation does; as a whole the two kinds are not proportional."""
    width = 4096
    source = mrviz.load_source("dnn", depth=2, width=width, input_size=4, progress=False)
    x = uniform(5, 1, 4, 4)
    inputs = (2 * x - 1).flatten(1)
    limit = source_ntk(source, x, kind="infinite-width").matrix
    whole = source_ntk(source, x, reduce=0).matrix
    ratio = whole / limit
    assert float(ratio.max() / ratio.min()) > 1.1
    first, _, last = (layer.double() for layer in source.module[1:])
    hidden = first(inputs)
    through = (last.weight[0] * (hidden > 0)) @ (last.weight[0] * (hidden > 0)).T
    lower = through * (inputs @ inputs.T * 2 / 16 + 0.1)
    upper = hidden.relu() @ hidden.relu().T * 2 / width + 0.1
    assert close(lower + upper, limit, 0.1)
    unweighed = through * (inputs @ inputs.T + 1) + hidden.relu() @ hidden.relu().T + 1
    assert close(whole, unweighed, 1e-5)
