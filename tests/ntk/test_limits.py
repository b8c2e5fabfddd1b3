"""Bad input, modes, missing devices and too little memory: a clear way out every time."""

import numpy as np
import pytest
import torch
from torch import nn

import mrviz
from mrviz import mappings
from mrviz.ntk import capacity_grams, jacobian_gram
from mrviz.programs import Border, Linear, Overlay, linear_border
from tests.ntk.common import close, conv_net, dense_net, uniform

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)


def make(program=None, net=None, mapping=None):
    source = mrviz.SourceModel(net or dense_net(CANVAS, 3, 1), CANVAS)
    return mrviz.ReprogrammedModel(
        source, program or Linear(CANVAS, IMAGE), mapping or mappings.Identity()
    )


def images(n=4, seed=0):
    return uniform(n, *IMAGE, seed=seed)


def broken(at, value):
    x = images()
    x[at] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (uniform(4, 1, 4, 3), r"\(1, 4, 3\), but \(1, 3, 3\) is expected"),
        (uniform(4, 3, 3), r"\(3, 3\), but \(1, 3, 3\) is expected"),
        (uniform(3), r"a single sample is x1\[None\]"),
        (uniform(0, 1, 3, 3), "holds no samples"),
        (broken((2, 0, 1, 1), float("nan")), r"NaN or infinite values, first in sample 2 \(1 of 4"),
        (broken(3, float("inf")), "NaN or infinite values, first in sample 3"),
        ((255 * images()).to(torch.uint8), "for 8-bit images pass x1 / 255"),
        (np.zeros((4, 1, 3, 3), dtype=int), "for 8-bit images pass x1 / 255"),
        (images() > 0.5, "floating point"),
    ],
)
def test_bad_samples(x, message):
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.ntk_gram(make(), x)


def test_bad_columns_are_called_x2():
    with pytest.raises(mrviz.InputError, match="x2 holds NaN"):
        mrviz.ntk_gram(make(), images(), broken(0, float("nan")))
    with pytest.raises(mrviz.InputError, match="x2 holds samples of shape"):
        mrviz.ntk_gram(make(), images(), uniform(2, 1, 4, 4))


def test_numpy_and_lists_are_taken():
    x = images(2)
    expected = mrviz.ntk_gram(make(), x).matrix
    assert close(mrviz.ntk_gram(make(), x.numpy()).matrix, expected, 1e-14)
    assert close(mrviz.ntk_gram(make(), x.tolist()).matrix, expected, 1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduce": "mean"}, "reduce must be one of full, trace, sum or a class number"),
        ({"reduce": 3}, "outside 0 to 2"),
        ({"reduce": -1}, "outside 0 to 2"),
        ({"reduce": True}, "reduce must be one of"),
        ({"method": "fast"}, "method must be one of auto, structured, contraction, products"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"dtype": torch.int32}, "dtype must be a floating-point type"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.ntk_gram(make(), images(), **options)


def test_a_plain_module_is_not_a_reprogrammed_model():
    with pytest.raises(mrviz.InputError, match=r"build one with\s+mrviz\.reprogram"):
        mrviz.ntk_gram(dense_net(CANVAS), images())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_and_absent():
    for call in (
        lambda: mrviz.ntk_gram(make(), images(), device="cuda"),
        lambda: jacobian_gram(make(), images(), device="cuda:0"),
        lambda: next(capacity_grams(make(Border(CANVAS, IMAGE)), images(), device="cuda")),
    ):
        with pytest.raises(mrviz.DeviceError, match="no usable NVIDIA GPU here: pass device='cpu'"):
            call()


def test_unknown_device():
    with pytest.raises(mrviz.DeviceError, match="not a device PyTorch knows"):
        mrviz.ntk_gram(make(), images(), device="gpu")


# Programs and sources that have no kernel


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
@pytest.mark.parametrize("kind", [Linear, Border, Overlay, linear_border])
def test_program_without_trainable_parameters(kind, method):
    program = kind(CANVAS, IMAGE).requires_grad_(False)
    with pytest.raises(mrviz.InputError, match="no trainable parameters"):
        mrviz.ntk_gram(make(program), images(), method=method)


def test_sweep_of_a_frozen_program():
    program = Border(CANVAS, IMAGE).requires_grad_(False)
    with pytest.raises(mrviz.InputError, match="no trainable parameters"):
        list(capacity_grams(make(program), images()))


class Padding(nn.Module):
    def forward(self, x):
        return nn.functional.pad(x, (1, 1, 1, 1))


def test_module_without_parameters_at_all():
    with pytest.raises(mrviz.InputError, match="no trainable parameters"):
        mrviz.ntk_gram(make(Padding()), images())


class Detached(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, u):
        return self.net(u.detach())


@pytest.mark.parametrize("kind", [Linear, Border, linear_border])
def test_source_that_is_not_differentiable(kind):
    with pytest.raises(mrviz.InputError, match="no gradient with respect to its input"):
        mrviz.ntk_gram(make(kind(CANVAS, IMAGE), Detached(dense_net(CANVAS))), images())


def test_program_that_is_not_differentiable():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return nn.functional.pad(x, (1, 1, 1, 1)) + self.shift.detach()

    for method in ("structured", "contraction"):
        with pytest.raises(mrviz.InputError, match="does not depend differentiably"):
            mrviz.ntk_gram(make(Cut()), images(), method=method)


def test_source_with_infinite_derivatives():
    class Root(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, u):
            return self.net(u.abs().sqrt())

    model = make(Border(CANVAS, IMAGE), Root(dense_net(CANVAS)))
    with pytest.raises(mrviz.InputError, match="NaN or infinite input derivatives"):
        mrviz.ntk_gram(model, torch.zeros(2, *IMAGE))


class Turns(nn.Module):
    """A source that starts to misbehave after it was accepted."""

    def __init__(self, net, result=None):
        super().__init__()
        self.net = net
        self.result = result

    def forward(self, u):
        out = self.net(u)
        return out if self.result is None else self.result(out)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda f: (f, f), "returned a tuple, not a tensor: wrap the"),
        (lambda f: {"logits": f}, "returned a dict, not a tensor"),
        (lambda f: f[:1], r"returned shape \(1, 3\) for a batch of"),
        (lambda f: f.sum(1), r"but \(batch, outputs\) is expected"),
        (lambda f: f[:, :, None], r"but \(batch, outputs\) is expected"),
    ],
)
def test_source_that_returns_something_else(result, message):
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.SourceModel(Turns(dense_net(CANVAS, 3), result), CANVAS)
    net = Turns(dense_net(CANVAS, 3))
    model = make(net=net)
    net.result = result
    x, y = images(), [0, 1, 2, 0]
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.ntk_gram(model, x)
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.reprogram(model.source, mrviz.Target(x, y, x, y), program="linear")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda u: (u, u), "program .* returned tuple for a batch of"),
        (lambda u: u[:1], r"program .* returned \(1, 1, 5, 5\) for a batch of"),
        (lambda u: u[..., :4], r"takes inputs of shape \(1, 5, 5\), got \(1, 5, 4\)"),
    ],
)
def test_program_that_returns_something_else(result, message):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return result(nn.functional.pad(x, (1, 1, 1, 1)) + self.shift)

    with pytest.raises(mrviz.InputError, match=message):
        mrviz.ntk_gram(make(Odd()), images())


def test_jacobian_gram_only_where_there_is_a_scalar_kernel():
    frozen = linear_border(CANVAS, IMAGE)
    frozen.first.requires_grad_(False)
    for program in (Border(CANVAS, IMAGE), Overlay(CANVAS, IMAGE), frozen):
        with pytest.raises(mrviz.InputError, match="has no scalar kernel in front"):
            jacobian_gram(make(program), images())


@pytest.mark.parametrize(
    "program", [Linear(CANVAS, IMAGE), Overlay(CANVAS, IMAGE), nn.Conv2d(1, 1, 1)]
)
def test_nothing_to_sweep(program):
    with pytest.raises(mrviz.InputError, match="has no capacity to sweep"):
        next(capacity_grams(make(program), images()))


@pytest.mark.parametrize("capacities", [[0], [1, 3], [-1], [1.5], ["1"], []])
def test_capacities_outside_the_range(capacities):
    canvas = (1, 7, 7)
    source = mrviz.SourceModel(dense_net(canvas, 3), canvas)
    model = mrviz.ReprogrammedModel(source, Border(canvas, IMAGE), mappings.Identity())
    with pytest.raises(mrviz.InputError, match=r"capacities must .*1 to 2"):
        list(capacity_grams(model, images(), capacities))


# Modes


class Noisy(nn.Module):
    """Dropout and batch statistics around a dense net."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1).double()
        self.drop = nn.Dropout(0.5)
        self.fixed = nn.Dropout(0.5).eval()
        self.net = dense_net(CANVAS, 3, 1)
        with torch.no_grad():
            self.norm.running_mean.fill_(0.3)
            self.norm.running_var.fill_(0.5)

    def forward(self, u):
        return self.net(self.fixed(self.drop(self.norm(u))))


def modes(module):
    return [m.training for m in module.modules()]


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
def test_source_in_training_mode_is_evaluated_in_eval_mode_and_restored(method):
    net = Noisy()
    model = make(net=net)
    model.train()
    net.fixed.eval()
    before, statistics = modes(model), net.norm.running_mean.clone()
    found = mrviz.ntk_gram(model, images(), method=method)
    assert modes(model) == before and any(before) and not all(before)
    assert torch.equal(net.norm.running_mean, statistics)
    model.eval()
    assert close(found.matrix, mrviz.ntk_gram(model, images(), method="contraction").matrix)
    assert not any(modes(model)), "a model in eval mode stays there"


class NoisyProgram(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=2)
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.norm(self.conv(x)))


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
def test_program_in_training_mode_likewise(method):
    program = NoisyProgram()
    model = make(program)
    model.train()
    before = modes(model)
    found = mrviz.ntk_gram(model, images(), method=method, chunk_size=2)
    assert modes(model) == before == [True] * len(before)
    assert int(program.norm.num_batches_tracked) == 0
    model.eval()
    assert close(found.matrix, mrviz.ntk_gram(model, images(), method="contraction").matrix)


def test_modes_are_restored_after_an_exception():
    net = Turns(Noisy())
    model = make(NoisyProgram(), net)
    model.train()
    before = modes(model)

    def fail(_):
        raise ZeroDivisionError

    net.result = fail
    for method in ("structured", "contraction", "products"):
        with pytest.raises(ZeroDivisionError):
            mrviz.ntk_gram(model, images(), method=method)
        assert modes(model) == before
    with pytest.raises(ZeroDivisionError):
        model.predict(images())
    assert modes(model) == before


def test_a_sweep_evaluates_in_eval_mode_and_restores():
    model = make(Border(CANVAS, IMAGE), Noisy())
    model.train()
    before = modes(model)
    found = []
    for _, gram in capacity_grams(model, images()):
        assert modes(model) == before
        found.append(gram)
    assert modes(model) == before
    model.eval()
    assert close(found[-1].matrix, mrviz.ntk_gram(model, images(), method="contraction").matrix)


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
def test_gradient_switched_off_around_the_call(method):
    expected = mrviz.ntk_gram(make(), images(), method=method).matrix
    mrviz.ntk.cache.clear()
    with torch.no_grad():
        assert close(mrviz.ntk_gram(make(), images(), method=method).matrix, expected, 1e-13)


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
def test_result_and_model_are_free_of_autograd(method):
    model = make(NoisyProgram())
    x = images().requires_grad_(True)
    gram = mrviz.ntk_gram(model, x, method=method)
    assert not gram.matrix.requires_grad
    assert x.grad is None and all(p.grad is None for p in model.parameters())


# Memory


class Hungry(nn.Module):
    """Runs out of memory for batches above a limit."""

    def __init__(self, error=torch.OutOfMemoryError):
        super().__init__()
        self.net = conv_net(CANVAS, 3, 1)
        self.limit = 1000
        self.error = error

    def forward(self, u):
        if len(u) > self.limit:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.net(u)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_out_of_memory_shrinks_the_chunk_and_says_so(limit, error):
    net = Hungry(error)
    model, x = make(net=net), images(9)
    normal = mrviz.ntk_gram(model, x)
    mrviz.ntk.cache.clear()
    net.limit = limit
    with pytest.warns(UserWarning, match="out of memory with 9 samples at once, went on with 4"):
        found = mrviz.ntk_gram(model, x)
    assert close(found.matrix, normal.matrix, 1e-12)
    assert normal.info.notes == ()
    assert any("out of memory" in note for note in found.info.notes)
    assert found.info.computed == 9
    assert "out of memory" in found._repr_html_()


def test_out_of_memory_in_a_sweep_and_in_a_cross_gram():
    net = Hungry()
    model, x = make(linear_border(CANVAS, IMAGE), net), images(5)
    normal = dict(capacity_grams(model, x))[1].matrix
    mrviz.ntk.cache.clear()
    net.limit = 2
    with pytest.warns(UserWarning, match="out of memory"):
        ((_, swept),) = capacity_grams(model, x)
    assert close(swept.matrix, normal, 1e-12) and swept.info.notes
    mrviz.ntk.cache.clear()
    with pytest.warns(UserWarning, match="out of memory"):
        cross = mrviz.ntk_gram(model, x[:2], x)
    assert close(cross.matrix, normal[:6], 1e-12) and cross.info.notes


def test_out_of_memory_while_measuring_the_conditions():
    net = Hungry()
    model, x = make(net=net), images(9)
    y = [0, 1, 2] * 3
    target = mrviz.Target(x, y, x, y)
    normal = mrviz.transfer_conditions(model, target)
    mrviz.ntk.cache.clear()
    net.limit = 4
    with pytest.warns(UserWarning, match="out of memory"):
        found = mrviz.transfer_conditions(model, target)
    assert found["T5"].value == pytest.approx(normal["T5"].value, rel=1e-6)


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
def test_not_even_one_sample_fits(method):
    net = Hungry()
    model = make(net=net)
    net.limit = 0
    with pytest.raises(mrviz.ResourceError, match=r"single sample .*smaller input_size"):
        mrviz.ntk_gram(model, images(3), method=method)


def test_other_runtime_errors_are_not_taken_for_out_of_memory():
    net = Turns(dense_net(CANVAS, 3))
    model = make(net=net)

    def fail(_):
        raise RuntimeError("shape mismatch")

    net.result = fail
    with pytest.raises(RuntimeError, match="shape mismatch"):
        mrviz.ntk_gram(model, images())


def test_a_gram_larger_than_memory_names_the_size_that_fits(monkeypatch):
    model = make()
    free = 12_000
    monkeypatch.setattr("mrviz.ntk.plan.available_bytes", lambda device: free)
    with pytest.raises(mrviz.ResourceError, match="Gram of 60×60 needs") as caught:
        mrviz.ntk_gram(model, images(20))
    message = str(caught.value)
    fits = int(message.split("up to ")[1].split()[0])
    assert (fits * 3) ** 2 * 8 <= free < ((fits + 4) * 3) ** 2 * 8
    assert "reduce='trace' needs 3.12 KiB" in message
    assert mrviz.ntk_gram(model, images(fits)).n == fits
    with pytest.raises(mrviz.ResourceError, match=f"up to {fits} samples fit"):
        mrviz.ntk_gram(model, images(fits + 1))
    assert mrviz.ntk_gram(model, images(20), reduce="trace").n == 20
    with pytest.raises(mrviz.ResourceError, match="up to"):
        list(capacity_grams(make(Border(CANVAS, IMAGE)), images(20)))


def test_unknown_free_memory_stops_nothing(monkeypatch):
    monkeypatch.setattr("mrviz.ntk.plan.available_bytes", lambda device: None)
    assert mrviz.ntk_gram(make(), images(3)).order == 9


def test_auto_turns_to_products_where_one_jacobian_is_too_large():
    model = make(NoisyProgram())
    normal = mrviz.ntk_gram(model, images())
    assert normal.info.method == "structured"
    found = mrviz.ntk_gram(model, images(), memory=100)
    assert found.info.method == "products" and "too many" in found.info.why
    assert close(found.matrix, normal.matrix)
