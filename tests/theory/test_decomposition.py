"""The paper's factors against brute force, and Eq. 16 put together from them."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev

import mrviz
from mrviz.errors import Cancelled, InputError
from mrviz.ntk.source_kernel import infinite_width_ntk, source_ntk
from mrviz.programs import Border, Linear, LowRankLinear, Overlay, linear_border
from mrviz.theory import (
    FeatureKernel,
    KernelRegimeSource,
    WideKernel,
    decompose,
    effectiveness,
    kernel_strength,
    source_factors,
)
from mrviz.theory.decomposition import program_factor
from mrviz.theory.feature_motion import feature_motions
from tests.ntk.common import close, conv_net, dense_net, module_function, smallest, uniform

SHAPE, IMAGE = (1, 5, 5), (1, 3, 3)
QUIET = {"progress": False}


def small_net(seed=0, outputs=2):
    return dense_net(SHAPE, outputs, seed, width=5)


def regime_of(kind, n=7, ridge=1e-3, classes=3):
    kernels = {
        "trace": lambda: FeatureKernel(small_net(), outputs=2),
        "sum": lambda: FeatureKernel(small_net(), outputs=2, reduce="sum"),
        "class": lambda: FeatureKernel(small_net(), outputs=2, reduce=1),
        "wide": lambda: WideKernel(3),
    }
    x, y = uniform(n, *SHAPE, seed=3), torch.arange(n) % classes
    return KernelRegimeSource(kernels[kind](), x, y, ridge=ridge, n_classes=classes)


def reprogrammed(module, program=None, outputs=None, **source):
    source = mrviz.SourceModel(module, SHAPE, **source)
    return mrviz.ReprogrammedModel(
        source, program or Linear(SHAPE, IMAGE), mrviz.mappings.Identity(outputs)
    )


def features(net, rows, u):
    """Φ(u) of one input, (R·P,), by differentiating q_r · f."""
    weights = {k: p.detach() for k, p in net.named_parameters()}
    found = jacrev(lambda w: rows @ functional_call(net, w, (u[None],))[0])(weights)
    return torch.cat([part.flatten(1) for part in found.values()], 1).flatten()


# Kernels that are differentiable


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("bias", [0.0, 0.1**0.5])
def test_wide_kernel_is_the_analytic_one(depth, bias):
    x, z = uniform(5, *SHAPE), uniform(4, *SHAPE, seed=1)
    x[1] = x[0] + 1e-7  # nearly equal inputs, where an arc cosine would lose half the digits
    kernel = WideKernel(depth, bias_std=bias)
    for second in (None, z):
        expected = infinite_width_ntk(x, second, depth=depth, bias_std=bias, **QUIET).matrix
        found = kernel(x, x if second is None else second)
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_wide_kernel_is_differentiable_everywhere_it_is_used():
    x = uniform(3, *SHAPE)
    u = torch.cat([x[:1], uniform(1, *SHAPE, seed=1)]).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: WideKernel(3)(v[1:], x), (u,))
    (grad,) = torch.autograd.grad(WideKernel(3)(u, x).sum(), u)
    assert torch.isfinite(grad).all()  # at a source point too, where the kernel has its kink


@pytest.mark.parametrize("reduce", ["trace", "sum", 1])
def test_feature_kernel_is_the_empirical_ntk(reduce):
    net = conv_net(SHAPE, 2)
    x, z = uniform(4, *SHAPE), uniform(3, *SHAPE, seed=1)
    kernel = FeatureKernel(net, outputs=2, reduce=reduce)
    expected = source_ntk(mrviz.SourceModel(net, SHAPE), x, z, reduce=reduce, **QUIET).matrix
    with torch.no_grad():
        assert close(kernel(x, z), expected)
        assert close(kernel(x, x), kernel.features(x) @ kernel.features(x).T)


def test_feature_kernels_that_there_are_not():
    with pytest.raises(InputError, match="reduce='trace'"):
        FeatureKernel(small_net(), outputs=2, reduce="full")
    with pytest.raises(InputError, match="no parameters"):
        FeatureKernel(nn.Flatten(), outputs=25)


@pytest.mark.parametrize("kind", ["trace", "sum", "wide"])
def test_kernel_regime_source_is_ridge_regression(kind):
    regime = regime_of(kind)
    u = uniform(3, *SHAPE, seed=8)
    shifted = regime.gram + 1e-3 * torch.eye(7).double()
    expected = regime.kernel(u, regime.inputs) @ torch.linalg.solve(shifted, regime.outputs)
    assert close(regime(u), expected, 1e-9)
    assert torch.equal(regime.outputs.argmax(1), torch.arange(7) % 3)
    source = mrviz.SourceModel(regime, SHAPE)
    assert source.outputs == 3 and source.dtype == torch.float64


def test_kernel_regime_source_with_values_and_without_ridge():
    x, y = uniform(4, *SHAPE), uniform(4, 2, seed=1)
    regime = KernelRegimeSource(WideKernel(2), x, y)
    assert close(regime(x), y, 1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": nn.Flatten()}, "kernel must be"),
        ({"ridge": -1.0}, "ridge must be"),
        ({"x": torch.zeros(4, *SHAPE)}, "singular to working precision"),
        ({"y": [0, 1, 2]}, "one label for each of 4"),
        ({"y": torch.zeros(3, 2)}, "y must hold integer labels"),
    ],
)
def test_kernel_regime_sources_that_do_not_work(change, message):
    options = {"kernel": WideKernel(2), "x": uniform(4, *SHAPE), "y": [0, 1, 2, 0]} | change
    with pytest.raises(InputError, match=message):
        KernelRegimeSource(options.pop("kernel"), options.pop("x"), options.pop("y"), **options)


# Eq. 16

PROGRAMS = {
    "linear": lambda: Linear(SHAPE, IMAGE),
    "low rank": lambda: LowRankLinear(SHAPE, IMAGE, rank=4),
    "border": lambda: Border(SHAPE, IMAGE),
    "overlay": lambda: Overlay(SHAPE, IMAGE),
    "linear + border": lambda: linear_border(SHAPE, IMAGE),
    "any module": lambda: nn.Sequential(nn.Conv2d(1, 1, 3, padding=2), nn.Tanh()),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("kind", ["trace", "wide"])
def test_equation_16_is_the_target_kernel(kind, program):
    model = reprogrammed(regime_of(kind), PROGRAMS[program](), normalize=((0.4,), (0.3,)))
    found = decompose(model, uniform(3, *IMAGE), samples=0, **QUIET)
    assert found.distance < 1e-8 and found.reassembled.shape == (9, 9)
    assert close(found.reassembled, found.direct.matrix, 1e-8)


@pytest.mark.parametrize("program", ["linear", "border", "any module"])
def test_equation_16_written_out(program):
    """Φ(X_S), ∇_aΦ and ∇_θa as explicit matrices, multiplied as the paper has them."""
    regime, x = regime_of("trace"), uniform(3, *IMAGE)
    model = reprogrammed(regime, PROGRAMS[program](), outputs=2)
    net, rows = regime.kernel.network, regime.kernel.rows
    phi = torch.stack([features(net, rows, u) for u in regime.inputs], 1)  # columns
    k_s = phi.T @ phi
    left = model.b @ regime.outputs.T @ torch.linalg.inv(k_s + 1e-3 * torch.eye(7).double())
    f, theta = module_function(nn.Identity(), model.program.double())
    factors = []
    for sample in x:
        u = f(theta, sample[None]).detach()[0]
        d_phi = jacrev(lambda v: features(net, rows, v))(u).flatten(1)
        d_a = jacrev(lambda t, s=sample: f(t, s[None]))(theta).flatten(0, -2)
        factors.append(left @ phi.T @ d_phi @ d_a)
    j = torch.cat(factors)
    found = decompose(model, x, samples=0, **QUIET)
    assert close(found.reassembled, j @ j.T, 1e-8) and close(found.direct.matrix, j @ j.T, 1e-8)
    strength = found.source.kernels[0]
    assert strength.smallest[0] == pytest.approx(smallest(k_s), rel=1e-6)


def test_equation_16_of_a_source_outside_the_kernel_regime():
    """Its kernel-regime stand-in is another model, so there is a distance."""
    model, data = reprogrammed(small_net()), (uniform(8, *SHAPE), torch.arange(8) % 2)
    found = decompose(model, uniform(3, *IMAGE), data, reassemble=True, samples=1, **QUIET)
    assert found.distance > 0.01 and found.reassembled.shape == found.direct.matrix.shape
    stand_in = KernelRegimeSource(FeatureKernel(small_net(), outputs=2), *data)
    expected = reprogrammed(stand_in, model.program)
    gram = mrviz.ntk_gram(expected, uniform(3, *IMAGE)).matrix
    assert close(found.reassembled, gram, 1e-8)
    without = decompose(model, uniform(3, *IMAGE), data, samples=0, **QUIET)
    assert without.reassembled is None and without.distance is None


def test_equation_16_leaves_a_trained_head_out():
    head = mrviz.mappings.LinearHead(mrviz.mappings.Identity(3))
    source = mrviz.SourceModel(regime_of("wide"), SHAPE)
    model = mrviz.ReprogrammedModel(source, Linear(SHAPE, IMAGE), head)
    found = decompose(model, uniform(3, *IMAGE), samples=0, **QUIET)
    assert found.distance > 0.01 and any("Assumption 2" in note for note in found.notes)


# Θ̂_A


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_kernel_by_brute_force(program):
    model, x = reprogrammed(small_net(), PROGRAMS[program]()), uniform(2, *IMAGE)
    found = program_factor(model, x)
    f, theta = module_function(nn.Identity(), model.program)
    j = jacrev(lambda t: f(t, x).flatten())(theta)
    assert close(found.matrix, j @ j.T) and found.order == 50
    if found.floor > 0:
        assert found.smallest is None or found.smallest == pytest.approx(
            smallest(j @ j.T), rel=1e-6
        )
    else:
        assert found.smallest == 0.0 and smallest(j @ j.T) < 1e-12


def test_program_kernel_of_prompts_says_nothing_about_more_than_one_input():
    for program in (Border(SHAPE, IMAGE), Overlay(SHAPE, IMAGE)):
        found = program_factor(reprogrammed(small_net(), program), uniform(2, *IMAGE))
        assert found.smallest == 0.0 and "says nothing" in found.why
    one = program_factor(reprogrammed(small_net(), Overlay(SHAPE, IMAGE)), uniform(1, *IMAGE))
    assert one.smallest == pytest.approx(1.0)  # D² = I


@pytest.mark.parametrize("program", ["linear", "low rank"])
def test_program_kernel_of_linear_programs_in_closed_form(program, monkeypatch):
    model, x = reprogrammed(small_net(), PROGRAMS[program]()), uniform(4, *IMAGE)
    explicit = program_factor(model, x)
    monkeypatch.setattr("mrviz.theory.decomposition.EXPLICIT_ORDER", 10)
    found = program_factor(model, x)
    assert found.matrix is None and "K ⊗ I" in found.why
    assert found.smallest == pytest.approx(explicit.smallest, rel=1e-6)
    many = program_factor(model, uniform(60, *IMAGE))
    assert many.smallest == 0.0 and "exactly" in many.why
    chain = reprogrammed(small_net(), nn.Sequential(nn.Conv2d(1, 300, 3, padding=2), Mean()))
    other = program_factor(chain, x)
    assert other.smallest is None and "not computed" in other.why


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1, keepdim=True)


# Θ_S^b and K_S


@given(seed=st.integers(0, 10**6), ridge=st.sampled_from([0.0, 0.1]))
def test_effectiveness_is_its_formula(seed, ridge):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    root, y, b = normal(6, 9), normal(6, 4), normal(3, 4)
    k = root @ root.T
    inverse = torch.linalg.inv(k + ridge * torch.eye(6))
    expected = b @ y.T @ inverse @ k @ inverse @ y @ b.T
    found = effectiveness(k, y, b, ridge)
    assert close(found.matrix, expected, 1e-6) and found.spectrum.smallest > 0


def test_effectiveness_of_a_singular_kernel_needs_a_ridge():
    k, eye = torch.diag(torch.tensor([1.0, 0.0])).double(), torch.eye(2)
    assert effectiveness(k, eye, eye) is None
    found = effectiveness(k, eye, eye, ridge=1.0)
    assert torch.allclose(found.matrix, torch.diag(torch.tensor([0.25, 0.0])).double())
    assert found.spectrum.rank == 1
    with pytest.raises(InputError, match="ridge must not be negative"):
        effectiveness(k, eye, eye, ridge=-1.0)


def test_kernel_strength_draws_the_same_number_of_each_class():
    source = mrviz.load_source("dnn", depth=2, width=6, input_size=4, n_classes=3, progress=False)
    x, y = uniform(40, 1, 4, 4), torch.tensor([0] * 20 + [1] * 15 + [2] * 5)
    found = kernel_strength(source, (x, y), per_class=4, draws=3, **QUIET)
    assert (found.order, len(found.smallest), found.notes) == (12, 3, ())
    assert found.spread > 0 and len(set(found.smallest)) == 3
    again = kernel_strength(source, (x, y), per_class=4, draws=3, **QUIET)
    assert again == found
    few = kernel_strength(source, (x, y), per_class=10, **QUIET)
    assert few.order == 25 and few.notes == ("only 5 samples of some class",)
    whole = kernel_strength(source, (x, y), per_class=50, **QUIET)
    assert len(whole.smallest) == 1 and whole.order == 40 and whole.spread == 0
    expected = infinite_width_ntk(2 * x.float().double() - 1, depth=2, **QUIET).matrix
    wide = kernel_strength(source, (x, y), kind="infinite-width", per_class=50, **QUIET)
    assert wide.smallest[0] == pytest.approx(smallest(expected), rel=1e-9)


# Assumption 3


def motions_of(net, rows, u, **options):
    net = net.double().requires_grad_(True)
    return feature_motions(net, list(net.parameters()), rows, u, **QUIET, **options)


def mixed_gram(net, rows, u):
    """∇_uΦᵀ∇_uΦ from the Jacobian of written-out features."""
    j = jacrev(lambda v: features(net, rows, v))(u).flatten(1)
    return j.T @ j


@pytest.mark.parametrize("make", [dense_net, conv_net])
@pytest.mark.parametrize("dense", [100, 1])
def test_motion_by_brute_force(make, dense):
    net, u = make(SHAPE, 3), uniform(2, *SHAPE)
    rows = torch.eye(3).double() / 3**0.5
    for motion, sample in zip(motions_of(net, rows, u, dense=dense), u, strict=True):
        values = torch.linalg.eigvalsh(mixed_gram(net, rows, sample))
        assert motion.order == 25 and motion.converged
        assert abs(motion.smallest - float(values[0])) <= motion.error + 1e-9
        assert motion.largest == pytest.approx(float(values[-1]), rel=1e-2)
        assert motion.low <= float(values[0]) <= motion.high


@pytest.mark.parametrize("reduce", ["trace", "sum", 0])
@pytest.mark.parametrize("bias", [True, False])
def test_motion_of_a_linear_source_is_the_identity(reduce, bias):
    """Φ(u) holds u itself, so ∇_uΦᵀ∇_uΦ = I, and I/std² behind a normalisation."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 3, bias=bias)).double()
    model = reprogrammed(net, normalize=((0.5,), (0.2,)))
    data = uniform(6, *SHAPE), torch.arange(6) % 3
    found = source_factors(model, uniform(2, *IMAGE), data, reduce=reduce, samples=2, **QUIET)
    for motion in found.assumption.motions:
        assert motion.smallest == motion.largest == pytest.approx(25.0)
    assert found.assumption.reduce == reduce


def test_motion_of_a_relu_network_is_at_least_that_of_its_first_layer():
    """∇_uΦᵀ∇_uΦ = Σ_r ‖∂(q_r f)/∂h₁‖² I + (what the later layers add)."""
    net = mrviz.load_source("dnn", depth=3, width=8, input_size=5, progress=False).module.double()
    u, rows = uniform(3, *SHAPE), torch.eye(10).double()
    for motion, sample in zip(motions_of(net, rows, u), u, strict=True):
        hidden = net[1](net[0](sample[None])).detach().requires_grad_(True)
        slopes = torch.autograd.functional.jacobian(net[2:], hidden)
        assert motion.low >= float(slopes.square().sum()) * (1 - 1e-9)


def test_motion_that_lanczos_does_not_find_in_time_is_a_bound(monkeypatch):
    monkeypatch.setattr("mrviz.theory.feature_motion.LANCZOS_STEPS", 2)
    net, u = dense_net(SHAPE, 3), uniform(1, *SHAPE)
    rows = torch.eye(3).double()
    (motion,) = motions_of(net, rows, u, dense=1)
    true = smallest(mixed_gram(net, rows, u[0]))
    assert not motion.converged and motion.low == 0.0 and motion.high >= true


def test_motion_that_is_small_enough_is_only_bounded():
    net, u = dense_net(SHAPE, 3), uniform(1, *SHAPE)
    rows = torch.eye(3).double()
    true = smallest(mixed_gram(net, rows, u[0]))
    (motion,) = motions_of(net, rows, u, dense=1, enough=1e3)
    assert not motion.converged and true <= motion.high < 1e3
    (motion,) = motions_of(net, rows, u, dense=1, enough=true / 2)
    assert motion.converged


def test_motion_of_a_source_that_reads_one_pixel_is_not_resolved():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(2).double())

        def forward(self, u):
            return self.gain * u.flatten(1)[:, :1]

    (motion,) = motions_of(First(), torch.eye(2).double(), uniform(1, *SHAPE))
    assert motion.smallest <= motion.error and motion.low == 0.0 and motion.largest > 0


def test_motion_needs_second_derivatives():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u, w):
            ctx.save_for_backward(u, w)
            return u.flatten(1)[:, :2] * w

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            u, w = ctx.saved_tensors
            out = torch.zeros_like(u).flatten(1)
            out[:, :2] = grad * w
            return out.view_as(u), (grad * u.flatten(1)[:, :2]).sum(0)

    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(2).double())

        def forward(self, u):
            return Once.apply(u, self.w)

    followed = nn.Sequential(Custom(), nn.Linear(2, 2))
    for net in (Custom(), followed):
        with pytest.raises(InputError, match="second derivatives"):
            motions_of(net, torch.eye(2).double(), uniform(1, *SHAPE))


def test_what_assumption_3_cannot_be_looked_at_for_is_noted(monkeypatch):
    model, data = reprogrammed(small_net()), (uniform(8, *SHAPE), torch.arange(8) % 2)
    monkeypatch.setattr("mrviz.theory.factors.MOST_ROWS", 1)
    many = source_factors(model, uniform(2, *IMAGE), data, **QUIET)
    assert many.assumption is None and "each of 2 outputs" in many.notes[-1]
    one = source_factors(model, uniform(2, *IMAGE), data, reduce="sum", **QUIET)
    assert one.assumption is not None and one.assumption.reduce == "sum"
    cond = mrviz.theory.indicators.assumption3(many, mrviz.theory.Thresholds())
    assert cond.status == "undecided" and "reduce='sum'" in cond.why


class Stop:
    def is_set(self):
        return True


def test_factors_can_be_cancelled():
    model, data = reprogrammed(small_net()), (uniform(8, *SHAPE), torch.arange(8) % 2)
    with pytest.raises(Cancelled):
        source_factors(model, uniform(2, *IMAGE), data, cancel=Stop(), **QUIET)
    regime = reprogrammed(regime_of("trace"))
    with pytest.raises(Cancelled):
        source_factors(regime, uniform(2, *IMAGE), cancel=Stop(), **QUIET)


def linear_source(x_s):
    """A linear source without bias: K_S = X_S X_Sᵀ and ∇_uΦᵀ∇_uΦ = I."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 2, bias=False)).double()
    return reprogrammed(net), (x_s.view(-1, *SHAPE), torch.arange(len(x_s)) % 2)


@pytest.mark.parametrize(
    ("scale", "status"), [(0.5, "holds"), (2.0, "fails"), (1.0, "holds"), (1 + 1e-15, "undecided")]
)
def test_assumption_3_of_a_linear_source(scale, status):
    """K_S = scale² I for source samples scale · e_i, against the identity."""
    model, data = linear_source(scale * torch.eye(25).double()[:8])
    found = source_factors(model, uniform(16, *IMAGE), data, **QUIET)
    if scale == 1.0:  # equal but for round-off: the assumption says "at least"
        status = "undecided"
    cond = mrviz.theory.indicators.assumption3(found, mrviz.theory.Thresholds())
    assert cond.status == status
    assert found.kernels[0].mean == pytest.approx(scale**2)


def test_assumption_3_of_more_samples_than_inputs():
    """K_S is singular then, and the assumption is easily met."""
    model, data = linear_source(uniform(40, 25))
    found = source_factors(model, uniform(16, *IMAGE), data, per_class=20, **QUIET)
    assert found.kernels[0].mean is None and found.assumption.holding == 16
    assert found.effectiveness is None and "pass ridge=σ_S" in found.notes[-1]


def test_infinitely_wide_features_have_no_derivative():
    found = source_factors(reprogrammed(regime_of("wide")), uniform(2, *IMAGE), **QUIET)
    assert found.assumption is None and "kink" in found.notes[-1]
    cond = mrviz.theory.indicators.assumption3(found, mrviz.theory.Thresholds())
    assert cond.status == "undecided" and "kink" in cond.why


def test_infinitely_wide_features_move_ever_faster_nearby():
    """‖Φ(u + h) − Φ(u)‖²/h² grows like 1/h where there are biases."""
    kernel, u = WideKernel(2), uniform(1, *SHAPE)
    direction = uniform(1, *SHAPE, seed=1)

    def speed(h):
        k = kernel(torch.cat([u, u + h * direction]), torch.cat([u, u + h * direction]))
        return float(k[0, 0] + k[1, 1] - 2 * k[0, 1]) / h**2

    assert speed(1e-4) == pytest.approx(10 * speed(1e-3), rel=0.05)


# Inequalities


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_bounds_through_the_factors(seed):
    """A_i A_iᵀ ⪯ λ_max(∇Φᵀ∇Φ) Θ_S^b, and Θ_T,ii ⪯ λ_max(B_i B_iᵀ) A_i A_iᵀ (a linear program)."""
    net = FeatureKernel(small_net(seed), outputs=2)
    x_s = uniform(6, *SHAPE, seed=seed)
    regime = KernelRegimeSource(net, x_s, torch.arange(6) % 3, ridge=1e-2)
    model = reprogrammed(regime, Linear(SHAPE, IMAGE, seed=seed))
    x = uniform(2, *IMAGE, seed=seed)
    found = decompose(model, x, samples=2, **QUIET)
    theta = found.direct.matrix.view(2, 3, 2, 3)
    for i, motion in enumerate(found.source.assumption.motions):
        norm = float(x[i].square().sum()) + 1
        upper = norm * motion.largest * found.source.effectiveness.matrix - theta[i, :, i]
        assert smallest(upper) >= -1e-9 * float(upper.norm())


# The result


def test_decomposition_as_data_and_text():
    model, data = reprogrammed(small_net()), (uniform(8, *SHAPE), torch.arange(8) % 2)
    found = decompose(model, uniform(3, *IMAGE), data, samples=2, reassemble=True, **QUIET)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["program"]["order"] == 75 and len(values["source"]["kernels"]) == 1
    assert values["proposition_gap"] == found.proposition_gap > 0
    for text in (repr(found), found._repr_html_()):
        for word in ("Θ̂_A", "K_S", "Θ_S^b", "Assumption 3", "Eq. 16", "Theorem 2", "no infinite"):
            assert word in text
    assert dataclasses.is_dataclass(found)


def test_decomposition_uses_the_gram_that_is_there():
    model, x = reprogrammed(regime_of("wide")), uniform(3, *IMAGE)
    gram = mrviz.ntk_gram(model, x)
    assert decompose(model, x, gram=gram, samples=0, **QUIET).direct is gram
    for wrong in (mrviz.ntk_gram(model, x, reduce="trace"), mrviz.ntk_gram(model, x[:2])):
        with pytest.raises(InputError, match="not the full Gram of these 3"):
            decompose(model, x, gram=wrong, **QUIET)


def test_factors_that_cannot_be_had():
    model, x = reprogrammed(small_net()), uniform(2, *IMAGE)
    with pytest.raises(InputError, match=r"pass source_data=\(x, y\)"):
        decompose(model, x, **QUIET)
    with pytest.raises(InputError, match="reduce='trace'"):
        source_factors(model, x, (uniform(4, *SHAPE), [0, 1, 0, 1]), reduce="full", **QUIET)
    fixed = reprogrammed(nn.Flatten())
    data = uniform(4, *SHAPE), [0, 1, 2, 3]
    with pytest.raises(InputError, match="no parameters"):
        source_factors(fixed, x, data, **QUIET)
    assert math.isfinite(decompose(model, x, (uniform(4, *SHAPE), [0, 1, 0, 1]), samples=0,
                                   **QUIET).theorem_sum)  # fmt: skip
