"""The operator against whole Jacobians, in both ways of taking products, and its limits."""

import json
from threading import Event

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import TorchDispatchMode

import mrviz
from mrviz import mappings
from mrviz.ntk.operator import NTKOperator, ntk_operator
from mrviz.programs import Border, Linear, Overlay, linear_border
from tests.ntk.common import (
    REDUCTIONS,
    brute_jacobian,
    close,
    contracted,
    conv_net,
    dense_net,
    uniform,
)
from tests.ntk.test_brute_force import build

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)
CASES = (
    "border width 1",
    "border resized width 2",
    "overlay sigmoid",
    "linear",
    "linear no bias",
    "linear_border resized",
    "linear_border frozen linear",
    "module affine",
    "module convolution",
    "program without closed form",
    "no closed form then border",
)
BUDGETS = {"factors": None, "autograd": 10}


def make(program=None, net=None, mapping=None):
    source = mrviz.SourceModel(net or conv_net(CANVAS, 3, 1), CANVAS)
    return mrviz.ReprogrammedModel(
        source, program or Linear(CANVAS, IMAGE), mapping or mappings.Identity()
    )


def images(n=4, seed=0):
    return uniform(n, *IMAGE, seed=seed)


def operator(model, x, **options):
    return ntk_operator(model, x, progress=False, **options)


def dense(theta):
    return theta @ torch.eye(theta.shape[1], dtype=torch.float64)


# The right numbers


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("case", CASES)
def test_products_are_those_of_whole_jacobians(case, budget):
    model, f, parameters, target = build(case, "grey to colour", "matrix")
    x1, x2 = uniform(5, *target, seed=1), uniform(3, *target, seed=2)
    j1, j2 = brute_jacobian(f, parameters, x1), brute_jacobian(f, parameters, x2)
    for reduce in REDUCTIONS:
        theta = operator(model, x1, reduce=reduce, chunk_size=2, memory=BUDGETS[budget])
        expected = contracted(j1, j1, reduce)
        assert theta.info.method == ("structured" if budget == "factors" else "products")
        assert float(expected.norm()) > 1e-6
        assert close(dense(theta), expected), reduce
        assert close(theta.diagonal(), expected.diagonal()), reduce
        assert theta.trace() == pytest.approx(float(expected.trace()))
        cross = theta.cross(x2, progress=False)
        assert cross.shape == (len(contracted(j2, j1, reduce)), theta.shape[0])
        assert close(dense(cross), contracted(j2, j1, reduce)), reduce


@pytest.mark.parametrize("n", [3, 9, 10, 25])
def test_fewer_samples_than_features_and_more(n):
    """Ten features (nine pixels and one): below ten samples they are turned into n coordinates."""
    model, x, new = make(), images(n), images(6, seed=5)
    theta = operator(model, x, chunk_size=4)
    assert theta._map.products.size == min(n, 10) * 25
    assert close(dense(theta), mrviz.ntk_gram(model, x).matrix, 1e-13)
    assert close(dense(theta.cross(new, progress=False)), mrviz.ntk_gram(model, new, x).matrix)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_trainable_head(budget, reduce):
    head = mappings.LinearHead(mappings.Identity(2))
    model, x = make(Border(CANVAS, IMAGE), mapping=head), images(5)
    expected = mrviz.ntk_gram(model, x, reduce=reduce, method="contraction").matrix
    theta = operator(model, x, reduce=reduce, memory=BUDGETS[budget])
    assert close(dense(theta), expected)
    assert close(theta.diagonal(), expected.diagonal())


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_do_not_matter(chunk, budget):
    model, x = make(linear_border(CANVAS, IMAGE)), images(7)
    theta = operator(model, x, chunk_size=chunk, memory=BUDGETS[budget])
    assert theta.info.chunk_size == chunk
    assert close(dense(theta), mrviz.ntk_gram(model, x).matrix, 1e-13)


@pytest.mark.parametrize("budget", BUDGETS)
def test_columns_one_by_one_are_the_columns_together(budget):
    theta = operator(make(), images(6), memory=BUDGETS[budget])
    v = uniform(18, 5) - 0.5
    together = theta @ v
    assert close(torch.stack([theta @ column for column in v.T], 1), together, 1e-13)
    # A budget that holds the factors and no more takes the columns in groups of one.
    assert close(operator(make(), images(6), memory=20_000) @ v, together, 1e-13)


@given(
    n=st.integers(1, 6),
    reduce=st.sampled_from(REDUCTIONS),
    budget=st.sampled_from([None, 10]),
    program=st.sampled_from([Linear, Border, Overlay, linear_border]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_symmetric_and_positive(n, reduce, budget, program, seed):
    theta = operator(make(program(CANVAS, IMAGE)), images(n, seed), reduce=reduce, memory=budget)
    u, v = (uniform(theta.shape[0], seed=seed + k) - 0.5 for k in (1, 2))
    scale = theta.trace() * float(u.norm() * v.norm())
    assert abs(float(u @ (theta @ v) - v @ (theta @ u))) <= 1e-13 * scale
    assert float(v @ (theta @ v)) >= -1e-13 * scale
    assert close(theta @ (2 * u - 3 * v), 2 * (theta @ u) - 3 * (theta @ v), 1e-12)


def test_new_samples_whose_factors_do_not_fit_beside_the_others():
    model, x, new = make(), images(6), images(9, seed=3)
    needed = 8 * 6 * (3 * 25 + 10)  # factors and features of six samples, float64
    theta = operator(model, x, memory=needed)
    assert theta.info.method == "structured"
    kept = []
    cross = theta.cross(new, progress=lambda *step: kept.append(step))
    assert kept == []
    assert close(dense(cross), mrviz.ntk_gram(model, new, x).matrix)
    assert close(dense(cross), mrviz.ntk_gram(model, new, x).matrix), "and again"


# Memory


def test_the_budget_decides_to_the_byte():
    needed = 8 * 6 * (3 * 25 + 10)
    kept, not_kept = (operator(make(), images(6), memory=m) for m in (needed, needed - 1))
    assert kept.info.method == "structured" and "take 3.98 KiB" in kept.why
    assert not_kept.info.method == "products"
    assert "would take 3.98 KiB, more than the" in not_kept.why
    assert not_kept.info.why == not_kept.why


class Largest(TorchDispatchMode):
    """Records the most numbers that any tensor holds."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.numel())
        return result


@pytest.mark.parametrize("budget", BUDGETS)
def test_neither_the_matrix_nor_the_jacobian_is_formed(budget):
    n, outputs, pixels, features = 60, 3, 25, 10
    model, x, v = make(), images(n), uniform(n * outputs)
    with Largest() as seen:
        theta = operator(model, x, chunk_size=8, memory=BUDGETS[budget])
        found = theta @ v
        theta.cross(images(5), progress=False) @ v
    factors = n * outputs * pixels
    assert seen.most <= (factors if budget == "factors" else 8 * 3 * 9 * pixels)
    assert factors < (n * outputs) ** 2 / 5 < n * outputs * pixels * features / 5
    assert close(found, mrviz.ntk_gram(model, x).matrix @ v)


def test_factors_stay_in_single_precision_and_products_are_double():
    model, x = make(net=conv_net(CANVAS, 3, 1).float()), images(12).float()
    theta, exact = operator(model, x), operator(model, x, dtype=torch.float64)
    assert (theta.epsilon, theta.round_off) == (2.0**-24, 2.0**-53)
    assert exact.epsilon == 2.0**-53
    assert theta.dtype == torch.float64 and theta.info.dtype == "float32"
    assert theta.info.accumulation == "float64"
    assert close(dense(theta), mrviz.ntk_gram(model, x).matrix, 1e-13), "the same float32 factors"
    assert not close(dense(theta), dense(exact), 1e-9)
    assert close(dense(theta), dense(exact), 1e-5)
    by_autograd = operator(model, x, memory=10)
    assert by_autograd.round_off == by_autograd.epsilon == 2.0**-24
    assert by_autograd.info.accumulation == "float32"
    assert close(dense(by_autograd), dense(exact), 1e-5)


class Hungry(nn.Module):
    """Runs out of memory for batches above a limit."""

    def __init__(self):
        super().__init__()
        self.net = conv_net(CANVAS, 3, 1)
        self.limit = 1000

    def forward(self, u):
        if len(u) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.net(u)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_out_of_memory_shrinks_the_chunk_and_says_so(limit, budget):
    net = Hungry()
    model, x = make(net=net), images(9)
    normal = mrviz.ntk_gram(model, x).matrix
    mrviz.ntk.cache.clear()
    net.limit = limit
    with pytest.warns(UserWarning, match="out of memory with 9 samples at once, went on with 4"):
        theta = operator(model, x, chunk_size=9, memory=BUDGETS[budget])
        found = dense(theta)
    assert close(found, normal, 1e-12)
    assert any("out of memory" in note for note in theta.info.notes)


@pytest.mark.parametrize("budget", BUDGETS)
def test_not_even_one_sample_fits(budget):
    net = Hungry()
    model = make(net=net)
    net.limit = 0
    with pytest.raises(mrviz.ResourceError, match="single sample"):
        operator(model, images(3), memory=BUDGETS[budget]) @ torch.ones(9)


def test_out_of_memory_outside_of_the_chunks(monkeypatch):
    theta = operator(make(), images())

    def fail(*args, **options):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("mrviz.ntk.operator.spans_of", fail)
    with pytest.raises(mrviz.ResourceError, match="multiply fewer columns at once"):
        theta @ torch.ones(12)


def test_more_samples_than_the_cache_holds_leave_it_alone():
    model, x = make(), images(6)
    operator(model, x)
    assert mrviz.ntk.cache.n_bytes == 6 * 3 * 25 * 8
    again = operator(model, x)
    assert (again.info.computed, again.info.cached) == (0, 6)
    mrviz.ntk.cache.clear()
    mrviz.ntk.cache.limit = 6 * 3 * 25 * 8 - 1
    assert operator(model, x).info.computed == 6
    assert mrviz.ntk.cache.n_bytes == 0


# What training and the caller do later


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_operator_is_that_of_the_moment_it_was_made(budget):
    program = Border((1, 7, 7), IMAGE, width=2)
    source = mrviz.SourceModel(conv_net((1, 7, 7), 3, 1), (1, 7, 7))
    model, x = mrviz.ReprogrammedModel(source, program, mappings.Identity()), images(5)
    new, expected = images(2, seed=8), mrviz.ntk_gram(model, x).matrix
    crossed = mrviz.ntk_gram(model, new, x).matrix
    theta = operator(model, x, memory=BUDGETS[budget])
    program.capacity = 1
    with torch.no_grad():
        program.delta.add_(1)
        x.zero_()
    assert close(dense(theta), expected)
    assert close(dense(theta.cross(new, progress=False)), crossed)
    assert theta._plan.model.source is source, "the source is not copied"


@pytest.mark.parametrize("budget", BUDGETS)
def test_modes_and_gradients_are_left_alone(budget):
    net = nn.Sequential(conv_net(CANVAS, 3, 1), nn.Dropout(0.5))
    model, x = make(net=net), images(3)
    model.train()
    before = [m.training for m in model.modules()]
    theta = operator(model, x, memory=BUDGETS[budget])
    with torch.no_grad():
        found = dense(theta)
    assert [m.training for m in model.modules()] == before
    assert not found.requires_grad and all(p.grad is None for p in model.parameters())
    model.eval()
    assert close(found, mrviz.ntk_gram(model, x).matrix)


def test_cancel_while_the_factors_are_computed():
    flag, steps = Event(), []

    def report(done, total, label):
        steps.append((done, total, label))
        if done == 2:
            flag.set()

    with pytest.raises(mrviz.Cancelled):
        ntk_operator(make(), images(9), chunk_size=2, progress=report, cancel=flag)
    assert steps[-1] == (2, 5, "source Jacobians")


@pytest.mark.parametrize("budget", BUDGETS)
def test_cancel_in_later_products(budget):
    flag = Event()
    theta = operator(make(), images(), memory=BUDGETS[budget], cancel=flag)
    cross = theta.cross(images(2), progress=False)
    theta @ torch.ones(12), cross @ torch.ones(12)
    flag.set()
    for linear in (theta, cross):
        with pytest.raises(mrviz.Cancelled):
            linear @ torch.ones(12)


def test_cancel_while_the_factors_of_new_samples_are_computed():
    flag = Event()
    flag.set()
    with pytest.raises(mrviz.Cancelled):
        operator(make(), images()).cross(images(2), progress=False, cancel=flag)


# The dual


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("reduce", ["full", "sum", 0])
def test_the_dual_has_the_non_zero_eigenvalues(budget, reduce):
    program = Border((1, 4, 4), (1, 2, 2), width=1)
    source = mrviz.SourceModel(conv_net((1, 4, 4), 3, 1), (1, 4, 4))
    model = mrviz.ReprogrammedModel(source, program, mappings.Identity())
    x = uniform(60, 1, 2, 2)
    budget = BUDGETS[budget] and 5000  # too little for the factors, enough for the dual
    theta = operator(model, x, reduce=reduce, memory=budget, chunk_size=4)
    assert theta.info.method == ("structured" if budget is None else "products")
    dual, matrix = theta.dual(), mrviz.ntk_gram(model, x, reduce=reduce).matrix
    assert dual.shape == (12, 12)
    values, vectors = torch.linalg.eigh(dual)
    assert close(values, torch.linalg.eigvalsh(matrix)[-12:], 1e-12)
    lifted = theta.lift(vectors[:, -3:])
    assert close(matrix @ lifted, lifted * values[-3:], 1e-12)
    assert close(lifted.norm(dim=0).square(), values[-3:], 1e-12)


def test_no_dual_where_it_would_not_be_smaller_or_not_fit():
    model = make(Border(CANVAS, IMAGE))  # 16 parameters
    assert operator(model, images(5)).dual() is None
    assert operator(model, images(6)).dual() is not None
    assert operator(model, images(6), memory=32 * 16**2 - 1).dual() is None
    assert operator(model, images(6), memory=32 * 16**2).dual() is not None
    assert operator(make(), images(30)).dual() is None


# Models that are hard to differentiate


class Squares(torch.autograd.Function):
    """u², whose backward pass cannot be differentiated; forward mode can."""

    @staticmethod
    def forward(u):
        return u * u

    @staticmethod
    def setup_context(context, inputs, output):
        context.save_for_backward(*inputs)
        context.save_for_forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(context, gradient):
        return 2 * context.saved_tensors[0] * gradient

    @staticmethod
    def jvp(context, change):
        return 2 * context.saved_tensors[0] * change


class OnlyBackward(Squares):
    @staticmethod
    def jvp(context, change):
        raise NotImplementedError


class Forgets(Squares):
    """Can be differentiated twice, with a wrong result."""

    @staticmethod
    def backward(context, gradient):
        return 2 * context.saved_tensors[0] * (gradient.detach() + 0 * gradient)

    jvp = OnlyBackward.jvp


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.net = conv_net(CANVAS, 3, 1)
        self.function = function

    def forward(self, u):
        return self.net(self.function.apply(u))


@pytest.mark.parametrize("columns", [1, 3])
def test_forward_mode_where_nothing_can_be_differentiated_twice(columns):
    model, x = make(net=Applied(Squares)), images(5)
    expected = mrviz.ntk_gram(model, x).matrix
    theta = operator(model, x, memory=10)
    v = uniform(15, columns)
    assert close(theta @ v, expected @ v)
    assert theta._map.products._way == theta._map.products._forward_mode


@pytest.mark.parametrize("function", [OnlyBackward, Forgets])
def test_what_cannot_be_differentiated_either_way_is_refused_not_wrong(function):
    theta = operator(make(net=Applied(function)), images(), memory=10)
    with pytest.raises(mrviz.InputError, match=r"neither twice nor in forward mode.*memory="):
        theta @ torch.ones(12)
    assert close(
        dense(operator(make(net=Applied(function)), images())),
        mrviz.ntk_gram(make(net=Applied(function)), images()).matrix,
    )


class Rounds(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return nn.functional.pad(x, (1, 1, 1, 1)) + self.shift.round()


class Cuts(Rounds):
    def forward(self, x):
        return nn.functional.pad(x, (1, 1, 1, 1)) + self.shift.detach()


@pytest.mark.parametrize(
    ("program", "message"),
    [(Rounds, "tangent kernel is zero"), (Cuts, "tangent kernel is undefined")],
)
def test_programs_that_are_not_differentiable(program, message):
    for budget in (None, 1):
        with pytest.raises(mrviz.InputError, match=message):
            operator(make(program()), images(), memory=budget) @ torch.ones(12)


# Arguments and reports


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_arrays_and_tensors(kind):
    theta = operator(make(), images())
    matrix = dense(theta).numpy()
    for v in (np.arange(12), np.arange(12.0), np.arange(24, dtype=np.float32).reshape(12, 2)):
        found = theta @ kind(v)
        assert isinstance(found, np.ndarray if kind is np.asarray else torch.Tensor)
        assert found.shape == v.shape and np.allclose(found, matrix @ v, rtol=1e-12)


def test_scipy_operator():
    theta = operator(make(), images())
    matrix, scipy = dense(theta).numpy(), theta.to_scipy()
    v = np.random.default_rng(0).standard_normal((12, 3))
    assert scipy.shape == (12, 12) and scipy.dtype == np.float64
    for product in (scipy @ v, scipy.H @ v, np.stack([scipy @ c for c in v.T], 1)):
        assert np.allclose(product, matrix @ v, rtol=1e-12)
    assert (scipy @ v[:, 0]).shape == (12,)


@pytest.mark.parametrize("shape", [(11,), (13, 2), (2, 12), (12, 1, 1), ()])
def test_vectors_of_another_shape(shape):
    theta = operator(make(), images())
    for linear in (theta, theta.cross(images(2), progress=False)):
        with pytest.raises(mrviz.InputError, match=r"multiplies vectors \(12,\) and matrices"):
            linear @ torch.ones(shape)


def test_complex_vectors():
    with pytest.raises(mrviz.InputError, match="real and imaginary part"):
        operator(make(), images()) @ torch.ones(12, dtype=torch.complex128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduce": "mean"}, "reduce must be one of"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"memory": 0}, "memory must be a positive number"),
        ({"dtype": torch.int32}, "dtype must be a floating-point type"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        operator(make(), images(), **options)


def test_bad_samples():
    with pytest.raises(mrviz.InputError, match="for 8-bit images"):
        operator(make(), torch.zeros(2, *IMAGE, dtype=torch.uint8))
    with pytest.raises(mrviz.InputError, match="x holds samples of shape"):
        operator(make(), images()).cross(uniform(2, 1, 4, 4))
    with pytest.raises(mrviz.InputError, match="no trainable parameters"):
        operator(make(Linear(CANVAS, IMAGE).requires_grad_(False)), images())


def test_reports():
    theta = operator(make(), images(), reduce="trace")
    assert isinstance(theta, NTKOperator)
    assert (theta.n, theta.outputs, theta.reduce, theta.shape) == (4, 3, "trace", (4, 4))
    assert theta.n_parameters == 25 * 10 and theta.device == torch.device("cpu")
    report = json.loads(json.dumps(theta.to_dict(), allow_nan=False))
    assert report["shape"] == [4, 4] and report["method"] == "structured"
    assert "4×4" in repr(theta) and "reduce='trace'" in repr(theta)
    assert "closed form of Linear" in theta._repr_html_()
    assert repr(theta.cross(images(2), progress=False)) == "CrossOperator(2×4, n=2)"


def test_dense_sources_too():
    model, x = make(net=dense_net(CANVAS, 3)), images(6)
    for budget in BUDGETS.values():
        assert close(dense(operator(model, x, memory=budget)), mrviz.ntk_gram(model, x).matrix)
