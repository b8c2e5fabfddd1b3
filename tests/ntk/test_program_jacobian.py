"""Jacobians of any program: every way gives the same, and the fast ones only where they do."""

import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mrviz
from mrviz import mappings
from mrviz.ntk import program_jacobian
from mrviz.ntk.program_jacobian import looped_jacobian, parameter_jacobian
from tests.ntk.common import close, conv_net, fill, uniform

SHAPE = (2, 5, 5)


class Affine(nn.Module):
    """Four parameters, two of which move, one of which is not used."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.3))
        self.shift = nn.Parameter(torch.full((2, 1, 1), 0.2))
        self.unused = nn.Parameter(torch.ones(1))
        self.frozen = nn.Parameter(torch.full((3,), 0.5), requires_grad=False)

    def forward(self, x):
        return torch.tanh(x * self.gain + self.shift * self.frozen[1])


def small_net():
    return nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 2, 1))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(50, 6)
        self.outer = nn.Linear(6, 50)
        self.outer.weight = nn.Parameter(self.inner.weight.detach().T.clone())

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x.flatten(1)))).view(-1, *SHAPE)


class Tied(nn.Module):
    """The same matrix twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.second = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.sigmoid(self.first(x)))


class Recurrent(nn.Module):
    """An LSTM keeps its weights in a list too."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(10, 10, batch_first=True)

    def forward(self, x):
        return self.lstm(x.view(-1, 5, 10))[0].reshape(-1, *SHAPE)


class Elsewhere(nn.Module):
    """Uses its parameter under another name, which no substitution of parameters sees."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([0.9]))
        self.shift = nn.Parameter(torch.tensor([0.1]))
        self.kept = [self.gain]

    def forward(self, x):
        return torch.sin(x * self.kept[0] + self.shift)


class Halted(nn.Module):
    """A part that is held fixed by ``torch.no_grad``, which forward mode would not heed."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.8))

    def forward(self, x):
        with torch.no_grad():
            still = self.gain * 2
        return x * self.gain.square() + still


class Warp(nn.Module):
    """grid_sample has neither a forward-mode derivative nor a vectorised backward pass."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[0.9, 0.1, 0.0], [-0.1, 1.1, 0.05]]))

    def forward(self, x):
        matrix = self.matrix.expand(len(x), 2, 3)
        return F.grid_sample(
            x, F.affine_grid(matrix, x.shape, align_corners=False), align_corners=False
        )


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class OldStyle(nn.Module):
    """An autograd function that no transform of torch.func takes."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return Cube.apply(x * self.gain)


class Branching(nn.Module):
    """Looks at values, which a vectorised pass cannot."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x) if float(x.sum()) > 0 else torch.tanh(self.conv(x))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        u = x.clone()
        u[:, :, 1:3] += torch.tanh(self.conv(x))[:, :, 1:3]
        return u.mul_(1.5)


class StraightThrough(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.4))

    def forward(self, x):
        soft = 5 * x * self.gain
        return soft + (soft.round() - soft).detach()


FORWARD, BACKWARD, LOOP = "_pushed_forward", "_pulled_back", "looped_jacobian"
CASES = {
    "forward mode": (Affine, FORWARD),
    "all samples at once": (small_net, BACKWARD),
    "dense": (Dense, BACKWARD),
    "tied": (Tied, BACKWARD),
    "recurrent": (Recurrent, LOOP),
    "kept elsewhere": (Elsewhere, LOOP),
    "no_grad inside": (Halted, BACKWARD),
    "neither transform": (Warp, LOOP),
    "old-style function": (OldStyle, LOOP),
    "branching": (Branching, LOOP),
    "in place": (InPlace, BACKWARD),
    "straight through": (StraightThrough, FORWARD),
}


@pytest.fixture
def taken(monkeypatch):
    """Names of the ways that were tried, in order."""
    tried = []

    def recorded(name):
        original = getattr(program_jacobian, name)

        def run(*args):
            tried.append(name)
            return original(*args)

        return run

    for name in (FORWARD, BACKWARD, LOOP):
        monkeypatch.setattr(program_jacobian, name, recorded(name))
    return tried


def by_hand(module, parameters, x, cotangents):
    """One scalar, one gradient: everything written out."""
    rows = []
    for k in range(len(x)):
        for direction in cotangents[k]:
            value = (module(x[k : k + 1])[0] * direction).sum()
            grads = torch.autograd.grad(value, parameters, allow_unused=True)
            flat = [
                torch.zeros_like(p) if g is None else g
                for g, p in zip(grads, parameters, strict=True)
            ]
            rows.append(torch.cat([g.flatten() for g in flat]))
    return torch.stack(rows).view(*cotangents.shape[:2], -1)


def case(kind, n=5, rows=6, seed=0):
    torch.manual_seed(seed)
    module = kind().double()
    x = uniform(n, *SHAPE, seed=seed) - torch.linspace(0.2, 0.8, n).view(n, 1, 1, 1)
    cotangents = uniform(n, rows, *SHAPE, seed=seed + 1) - 0.5
    return module, [p for p in module.parameters() if p.requires_grad], x, cotangents


@pytest.mark.parametrize("name", CASES)
def test_every_way_gives_the_same(taken, name):
    kind, way = CASES[name]
    module, parameters, x, cotangents = case(kind)
    expected = by_hand(module, parameters, x, cotangents)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop")
        found = parameter_jacobian(module, parameters, x, cotangents)
    assert taken[-1] == way
    if kind is Halted:
        assert taken == [FORWARD, BACKWARD], "tried, and found to be wrong"
    assert close(found, expected, 1e-10) and not found.requires_grad
    assert close(looped_jacobian(module, parameters, x, cotangents), expected, 1e-12)
    assert all(p.grad is None for p in parameters)


def test_both_signs_of_branching_are_in_the_test():
    x = case(Branching)[2]
    signs = {bool(sample.sum() > 0) for sample in x}
    assert signs == {True, False}


@pytest.mark.parametrize(("rows", "way"), [(4, FORWARD), (3, BACKWARD)])
def test_forward_mode_where_parameters_are_no_more_than_rows(taken, rows, way):
    arguments = case(Affine, rows=rows)
    assert sum(p.numel() for p in arguments[1]) == 4
    found = parameter_jacobian(*arguments)
    assert taken == [way] and close(found, by_hand(*arguments))


def test_large_modules_and_single_samples_take_the_loop(taken, monkeypatch):
    arguments = case(small_net, n=1)
    assert close(parameter_jacobian(*arguments), by_hand(*arguments))
    arguments = case(small_net)
    monkeypatch.setattr(program_jacobian, "VECTORISED", 44 * 25 - 1)
    assert sum(p.numel() for p in arguments[1]) == 44
    assert close(parameter_jacobian(*arguments), by_hand(*arguments))
    assert taken == [LOOP, LOOP]


@pytest.mark.parametrize("kind", [Affine, small_net, Elsewhere])
def test_slices_of_samples(monkeypatch, taken, kind):
    monkeypatch.setattr(program_jacobian, "PAIRS", 12)
    arguments = case(kind, n=5, rows=6)
    assert close(parameter_jacobian(*arguments), by_hand(*arguments), 1e-10)
    if kind is Elsewhere:
        assert taken == [FORWARD, BACKWARD, LOOP, LOOP, LOOP], "what failed is not tried again"
    else:
        assert len(taken) == 3


@pytest.mark.parametrize("pairs", [1, 6, 1000])
def test_results_do_not_depend_on_the_slices(monkeypatch, pairs):
    monkeypatch.setattr(program_jacobian, "PAIRS", pairs)
    arguments = case(small_net, n=5, rows=6)
    assert close(parameter_jacobian(*arguments), by_hand(*arguments), 1e-10)


class Uncopied(nn.Module):
    """A module that cannot be copied."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.lock = threading.Lock()

    def forward(self, x):
        return self.conv(x)


def test_modules_that_cannot_be_copied_take_the_loop(taken):
    arguments = case(Uncopied)
    assert close(parameter_jacobian(*arguments), by_hand(*arguments))
    assert taken == [LOOP]


@pytest.mark.parametrize("kind", [Affine, small_net])
def test_other_threads_see_the_module_as_it_is(kind):
    """While parameters are substituted in one thread, another one runs the module."""
    module, parameters, x, cotangents = case(kind)
    seen = []

    def look(_, inputs, __):
        def run():
            seen.append([type(p) for p in module.parameters()])

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    module.register_forward_hook(look)
    parameter_jacobian(module, parameters, x, cotangents)
    assert len(seen) > 1
    assert {kind for types in seen for kind in types} == {nn.Parameter}


def test_order_of_the_parameters_is_that_given():
    module, parameters, x, cotangents = case(small_net)
    swapped = [parameters[2], parameters[0]]
    found = parameter_jacobian(module, swapped, x, cotangents)
    assert found.shape[2] == 4 + 36
    assert close(found, by_hand(module, swapped, x, cotangents))


def test_parameters_of_nobody_take_the_loop(taken):
    module, _, x, cotangents = case(small_net)
    module.extra = [nn.Parameter(torch.tensor(0.3, dtype=torch.float64))]
    module.register_forward_hook(lambda m, _, u: u * m.extra[0])
    found = parameter_jacobian(module, module.extra, x, cotangents)
    assert taken == [LOOP] and close(found, by_hand(module, module.extra, x, cotangents))


class Stop(mrviz.errors.Cancelled):
    pass


@pytest.mark.parametrize("kind", [Affine, small_net, Warp])
def test_ticks_can_stop_it(kind):
    arguments, count = case(kind), []

    def tick():
        count.append(1)
        if len(count) == 1:
            raise Stop

    with pytest.raises(Stop):
        parameter_jacobian(*arguments, tick)
    assert len(count) == 1
    parameter_jacobian(*arguments, tick)
    assert len(count) > 1


def test_out_of_memory_is_not_taken_for_a_missing_derivative(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(program_jacobian, BACKWARD, full)
    with pytest.raises(torch.OutOfMemoryError):
        parameter_jacobian(*case(small_net))


def test_global_random_numbers_are_left_alone():
    arguments = case(small_net)
    before = torch.get_rng_state()
    parameter_jacobian(*arguments)
    assert torch.equal(torch.get_rng_state(), before)


# Programs in a Gram


def gram(program, x=None, **options):
    source = mrviz.SourceModel(conv_net(SHAPE, 3, 1), SHAPE)
    model = mrviz.ReprogrammedModel(source, program, mappings.Identity())
    return mrviz.ntk_gram(model, uniform(4, *SHAPE) if x is None else x, **options)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reduce", ["full", "trace", "sum", 1])
def test_grams_agree_with_contractions(name, reduce):
    torch.manual_seed(0)
    program = CASES[name][0]()
    found = gram(program, reduce=reduce, chunk_size=3)
    assert found.info.method == "structured"
    expected = gram(program, reduce=reduce, method="contraction")
    assert close(found.matrix, expected.matrix, 1e-10)


class Faulty(nn.Module):
    """A program that goes wrong in a way of choice."""

    def __init__(self, forward):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.2))
        self.run = forward

    def forward(self, x):
        return self.run(x, self.gain)


def leave_no_graph(x, gain):
    with torch.no_grad():
        return x * gain


@pytest.mark.parametrize("method", ["structured", "contraction"])
@pytest.mark.parametrize(
    "forward",
    [
        lambda x, gain: x * gain.detach(),
        lambda x, gain: x * gain.item(),
        lambda x, gain: F.one_hot((x * gain).argmax(3), 5).to(x),
        lambda x, gain: (x * gain > 0.5).to(x),
        leave_no_graph,
    ],
    ids=["detach", "item", "argmax", "comparison", "no_grad"],
)
def test_programs_without_a_gradient(forward, method):
    message = r"output of Faulty does not depend differentiably .*straight through: hard = soft"
    with pytest.raises(mrviz.InputError, match=message):
        gram(Faulty(forward), method=method)


@pytest.mark.parametrize("method", ["structured", "contraction"])
@pytest.mark.parametrize(
    "forward",
    [
        lambda x, gain: (10 * x * gain).round() / 10,
        lambda x, gain: torch.sign(x * gain - 0.5),
    ],
    ids=["round", "sign"],
)
def test_programs_with_no_slope_anywhere(forward, method):
    message = "output of Faulty does not change with its trainable parameters .*straight through"
    with pytest.raises(mrviz.InputError, match=message):
        gram(Faulty(forward), method=method)


@pytest.mark.parametrize("method", ["structured", "contraction"])
def test_operations_that_have_no_derivative(method):
    def step(x, gain):
        return x + torch.heaviside(gain - x, x.new_zeros(()))

    message = "output of Faulty cannot be differentiated .*heaviside.*straight through"
    with pytest.raises(mrviz.InputError, match=message):
        gram(Faulty(step), method=method)


@pytest.mark.parametrize("method", ["structured", "contraction"])
def test_black_images_and_dead_sources_are_no_fault_of_the_program(method):
    program = Faulty(lambda x, gain: x * gain)
    assert not gram(program, torch.zeros(3, *SHAPE), method=method).matrix.any()
    dead = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(50, 2)).double()
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(dead, SHAPE),
        Faulty(lambda x, gain: -x * gain.square()),
        mappings.Identity(),
    )
    assert not mrviz.ntk_gram(model, uniform(3, *SHAPE), method=method).matrix.any()


def test_a_program_that_returns_integers():
    with pytest.raises(mrviz.InputError, match=r"Faulty returned torch\.int64 values .*floating"):
        gram(Faulty(lambda x, gain: (x * gain).round().long()))


MIXING = {
    "mean over the batch": lambda x, gain: x * gain - x.mean(0, keepdim=True),
    "norm over the batch": lambda x, gain: gain * x / x.norm(),
    "neighbours": lambda x, gain: gain * x + x.roll(1, 0),
    "batch statistics": lambda x, gain: gain * F.batch_norm(x, None, None, training=True),
}


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("n", [1, 4])
def test_programs_that_mix_samples(name, method, n):
    message = r"program Faulty gives a sample another programmed input alone .*each sample alone"
    with pytest.raises(mrviz.InputError, match=message):
        gram(Faulty(MIXING[name]), uniform(n, *SHAPE), method=method)


def test_programs_that_mix_samples_are_found_out_by_equal_samples_too():
    with pytest.raises(mrviz.InputError, match="program Faulty gives a sample another"):
        gram(Faulty(MIXING["mean over the batch"]), uniform(1, *SHAPE).expand(4, *SHAPE))


def test_programs_that_mix_samples_cannot_predict():
    source = mrviz.SourceModel(conv_net(SHAPE, 3, 1), SHAPE)
    x, y = uniform(6, *SHAPE), [0, 1, 2] * 2
    with pytest.raises(mrviz.InputError, match="program Faulty gives a sample another"):
        mrviz.reprogram(
            source, mrviz.Target(x, y, x, y), program=Faulty(MIXING["mean over the batch"])
        )


def test_random_programs():
    with pytest.raises(mrviz.InputError, match=r"program Faulty gives other .*on a second call"):
        gram(Faulty(lambda x, gain: gain * F.dropout(x)))


def test_a_program_is_probed_once_and_in_eval_mode():
    sizes = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x):
            sizes.append((len(x), self.training))
            return self.norm(x)

    source = mrviz.SourceModel(conv_net(SHAPE, 3, 1), SHAPE)
    model = mrviz.ReprogrammedModel(source, fill(Counting(), 1), mappings.Identity()).train()
    model.inputs(uniform(9, *SHAPE))
    assert sizes == [(2, False), (2, False), (1, False)]
    model.inputs(uniform(9, *SHAPE))
    assert len(sizes) == 3 and model.program.training
    assert int(model.program.norm.num_batches_tracked) == 0
