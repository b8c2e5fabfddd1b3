"""Averages of logits and of probabilities: hand-worked cases, and exact kernels of both."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import mrviz
from mrviz.ntk import sketch_grams
from mrviz.ntk.jacobian import cache
from mrviz.programs import Border, Linear
from mrviz.programs.mappings import Identity, LinearHead, LogitAverage, ProbabilityAverage
from mrviz.programs.mappings.averaging import by_frequency, consecutive, drawn, group_size
from mrviz.theory import decompose, gram_factors, source_factors
from tests.ntk.common import close, contracted, conv_net, dense_net, fill, uniform

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)
GROUPS = ((0, 3), (4, 1), (2, 5))
QUIET = {"progress": False}


@pytest.fixture(autouse=True)
def empty_cache():
    cache.clear()


def make(mapping, program=None, net=conv_net, seed=1):
    source = mrviz.SourceModel(net(CANVAS, 6, seed), CANVAS)
    program = Linear(CANVAS, IMAGE, seed=seed) if program is None else program
    return mrviz.ReprogrammedModel(source, fill(program.double(), seed, 0.5), mapping)


def averaged(model, x):
    """The target outputs by definition."""
    p = model.source(model.program(x)).softmax(1)
    return torch.stack([p[:, list(group)].mean(1) for group in GROUPS], 1).log()


def whole_jacobian(model, x, outputs):
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters, retain_graph=True)])
        for value in outputs(model, x).flatten()
    ]
    return torch.stack(rows).view(len(x), len(GROUPS), -1)


def test_logits_by_hand():
    z = torch.tensor([[1.0, 2.0, 3.0, 6.0]]).double()
    mapping = LogitAverage([(3, 0), (1, 2)])
    assert mapping.matrix(4).tolist() == [[0.5, 0, 0, 0.5], [0, 0.5, 0.5, 0]]
    assert mapping.layer(4)(z).tolist() == [[3.5, 2.5]]
    assert mapping.m == 2 and mapping.linear and not mapping.trainable


def test_probabilities_by_hand():
    """(0.1 + 0.2)/2 and (0.3 + 0.4)/2; cross-entropy of class 0 is −log(0.15/0.5)."""
    z = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).double().log() + 7
    head = ProbabilityAverage(consecutive(2, 2)).layer(4)
    f = head(z)
    assert close(f.exp(), torch.tensor([[0.15, 0.35]]).double(), 1e-6)
    loss = functional.cross_entropy(f, torch.tensor([0]))
    assert float(loss) == pytest.approx(float(np.log(10 / 3)))
    assert head.weight.tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]


def test_one_output_a_class_is_the_log_probability_of_it():
    z = uniform(4, 6)
    f = ProbabilityAverage([(2,), (0,)]).layer(6)(z)
    assert close(f, z.log_softmax(1)[:, [2, 0]], 1e-14)


def test_probabilities_that_would_underflow():
    z = torch.tensor([[0.0, 5e3, -4e3, 1.0]], requires_grad=True)
    f = ProbabilityAverage([(0, 3), (2, 1)]).layer(4).float()(z)
    expected = [np.logaddexp(0, 1) - 5e3 - np.log(2), -np.log(2)]
    assert f[0].tolist() == pytest.approx(expected, rel=1e-6)
    (slope,) = torch.autograd.grad(f[0, 0], z)
    assert torch.isfinite(slope).all() and float(slope[0, 1]) == -1


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3), st.integers(0, 99))
def test_averaged_probabilities_sum_to_at_most_one_over_m(n_classes, m, spare, seed):
    n_source = n_classes * m + spare
    groups = drawn(n_source, n_classes, m, seed)
    used = [s for group in groups for s in group]
    assert len(set(used)) == len(used) == n_classes * m and max(used) < n_source
    z = 8 * uniform(5, n_source, seed=seed) - 4
    sums = ProbabilityAverage(groups).layer(n_source)(z).exp().sum(1)
    assert (sums <= 1 / m + 1e-12).all()
    if not spare:
        assert float((sums - 1 / m).abs().max()) < 1e-12


def test_assignments():
    assert consecutive(3, 2) == [[0, 1], [2, 3], [4, 5]]
    assert drawn(20, 3, 4, 1) == drawn(20, 3, 4, 1) != drawn(20, 3, 4, 2)
    assert drawn(20, 3, 4, 1) != consecutive(3, 4)


def test_assignment_by_frequency_by_hand():
    """9 at (1, 0); 8 at (1, 2), which fills class 1; then class 0 takes the 5 at column 3 and
    the 2 at column 1, for column 2 with its 6 is used; class 2 has columns 4 and 5 left."""
    counts = torch.tensor([[5, 2, 6, 5, 0, 0], [9, 1, 8, 7, 0, 0], [7, 1, 4, 4, 3, 0]])
    assert by_frequency(counts, 2) == [[3, 1], [0, 2], [4, 5]]
    assert by_frequency(counts, 1) == [[2], [0], [3]]


@pytest.mark.parametrize(("n_source", "m"), [(1000, 5), (30, 3), (10, 1), (49, 4)])
def test_as_many_as_there_are_up_to_five(n_source, m):
    assert group_size(n_source, 10, None) == m


@pytest.mark.parametrize("net", [conv_net, dense_net])
@pytest.mark.parametrize("program", [Linear, Border])
@pytest.mark.parametrize("reduce", ["full", "trace", "sum", 2])
def test_the_kernel_of_averaged_probabilities_is_exact(net, program, reduce):
    """Against the Jacobian of the whole of f by its definition, in float64."""
    model, x = make(ProbabilityAverage(GROUPS), program(CANVAS, IMAGE), net), uniform(4, *IMAGE)
    assert close(model(x).detach(), averaged(model, x).detach(), 1e-12)
    jacobian = whole_jacobian(model, x, averaged)
    gram = mrviz.ntk_gram(model, x, reduce=reduce, chunk_size=3, **QUIET)
    assert close(gram.matrix, contracted(jacobian, jacobian, reduce))
    operator = mrviz.ntk_operator(model, x, reduce=reduce, **QUIET)
    v = uniform(operator.shape[0], seed=2)
    assert close(operator @ v, gram.matrix @ v)
    autograd = mrviz.ntk_operator(model, x, reduce=reduce, memory=1, **QUIET)
    assert autograd.info.method == "products" and close(autograd @ v, gram.matrix @ v)


def test_probabilities_of_all_source_outputs_leave_a_direction_out_for_each_sample():
    model, x = make(ProbabilityAverage(GROUPS)), uniform(4, *IMAGE)
    spec = mrviz.spectrum(mrviz.ntk_gram(model, x, **QUIET))
    assert spec.rank == 4 * (len(GROUPS) - 1)
    f = model.predict(x)
    zero = torch.block_diag(*f.exp().unsqueeze(1))
    kernel = mrviz.ntk_gram(model, x, **QUIET).matrix
    assert float((zero @ kernel).norm()) < 1e-12 * float(kernel.norm())
    fewer = make(ProbabilityAverage([(0, 3), (1, 5)]))
    assert mrviz.spectrum(mrviz.ntk_gram(fewer, x, **QUIET)).full_rank


def test_the_source_jacobian_by_hand():
    """∂f_t/∂z_s = p_s/Σ_{S_t} p − p_s for s in S_t, and −p_s elsewhere."""
    z = uniform(1, 6).requires_grad_()
    f = ProbabilityAverage(GROUPS).layer(6)(z)
    p = z.detach().softmax(1)[0]
    for t, group in enumerate(GROUPS):
        (slope,) = torch.autograd.grad(f[0, t], z, retain_graph=True)
        expected = -p
        expected[list(group)] += p[list(group)] / p[list(group)].sum()
        assert close(slope[0], expected, 1e-12)


def test_sweeps_sketches_and_other_programs_go_through_the_head():
    model, x = make(ProbabilityAverage(GROUPS), Border(CANVAS, IMAGE)), uniform(5, *IMAGE)
    full = mrviz.ntk_gram(model, x, **QUIET).matrix
    ((_, swept),) = mrviz.ntk.capacity_grams(model, x, **QUIET)
    assert close(swept.matrix, full)
    (sketch,) = sketch_grams(model, x, samples=[5], directions=2, **QUIET)
    q = sketch.directions
    expected = torch.einsum("ka,iajb,lb->ikjl", q, full.view(5, 3, 5, 3), q).reshape(10, 10)
    assert close(sketch.gram.matrix, expected)
    assert sketch.model.outputs == 2 and sketch.model.weights.shape == (2, 6)
    assert close(sketch.model(x).detach(), model(x).detach() @ q.T)
    target = mrviz.Target(x, torch.arange(5) % 3, x, torch.arange(5) % 3)
    factors = gram_factors(model, target, **QUIET)
    assert factors.distance is not None and factors.distance < 1e-12


def test_the_cache_does_not_confuse_mappings():
    """Same source, same inputs, same groups: logits, probabilities, other groups."""
    x, program = uniform(4, *IMAGE), Linear(CANVAS, IMAGE).double()
    source = mrviz.SourceModel(conv_net(CANVAS, 6, 1), CANVAS)
    turned = (GROUPS[1], GROUPS[0], GROUPS[2])
    kinds = [LogitAverage(GROUPS), ProbabilityAverage(GROUPS), ProbabilityAverage(turned)]
    kinds += [Identity(3), ProbabilityAverage([(0,), (1,), (2,)])]
    for mapping in kinds:
        model = mrviz.ReprogrammedModel(source, program, mapping)
        gram = mrviz.ntk_gram(model, x, **QUIET)
        assert gram.info.computed == 4
        assert close(gram.matrix, mrviz.ntk_gram(model, x, method="contraction", **QUIET).matrix)
        assert mrviz.ntk_gram(copy.deepcopy(model), x, **QUIET).info.computed == 0


def test_a_store_does_not_confuse_mappings(tmp_path):
    x = uniform(3, *IMAGE)
    model = make(ProbabilityAverage(GROUPS))
    mrviz.ntk_gram(model, x, store=tmp_path, **QUIET)
    with pytest.raises(mrviz.InputError, match="the output mapping is another one"):
        mrviz.ntk_gram(make(LogitAverage(GROUPS)), x, store=tmp_path, **QUIET)


def test_no_matrix_b_where_the_mapping_is_not_linear():
    model = make(ProbabilityAverage(GROUPS))
    with pytest.raises(mrviz.InputError, match=r"not linear.*acts on logits"):
        _ = model.b
    assert torch.equal(model.weights, LogitAverage(GROUPS).matrix(6))
    assert model.outputs == 3 and model.n_parameters == make(Identity(3)).n_parameters
    with pytest.raises(mrviz.InputError, match="a linear head weighs logits"):
        LinearHead(ProbabilityAverage(GROUPS))


def test_the_papers_factors_say_that_they_need_a_linear_mapping():
    x, data = uniform(3, *IMAGE), (uniform(12, *CANVAS), torch.arange(12) % 6)
    model = make(ProbabilityAverage(GROUPS))
    options = {"samples": 0, "per_class": 1, "draws": 1, **QUIET}
    found = source_factors(model, x, data, **options)
    assert found.effectiveness is None and any("Assumption 2" in note for note in found.notes)
    whole = decompose(model, x, data, **options)
    assert whole.distance is None
    with pytest.raises(mrviz.InputError, match="not linear"):
        decompose(model, x, data, reassemble=True, **options)


@pytest.mark.parametrize("kind", [LogitAverage, ProbabilityAverage])
def test_prediction_and_training_agree_at_the_start_and_training_learns(kind):
    x, y = uniform(12, *IMAGE), torch.arange(12) % 3
    target = mrviz.Target(x, y, x, y)
    model = make(kind(GROUPS))
    prediction = mrviz.predict_training(model, target, steps=30, **QUIET)
    fit = mrviz.train(model, target, **prediction.train_options, **QUIET)
    assert fit.train_loss[0] == pytest.approx(prediction.trajectory.train_loss[0])
    assert fit.train_loss[-1] < fit.train_loss[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LogitAverage([(0, 1), (1, 2)]), "one target class only"),
        (lambda: LogitAverage([(0, -1), (1, 2)]), "one target class only"),
        (lambda: LogitAverage([(0, 1), (2,)]), r"same number of source outputs.*\[2, 1\]"),
        (lambda: ProbabilityAverage([]), "same number of source outputs"),
        (lambda: ProbabilityAverage([(), ()]), "same number of source outputs"),
        (lambda: ProbabilityAverage(GROUPS).layer(5), "uses source output 5, but the source has 5"),
        (lambda: group_size(10, 3, 4), "choose m from 1 to 3"),
        (lambda: group_size(10, 3, 0), "m must be at least 1"),
        (lambda: group_size(2, 3, None), "too few for 3 target classes"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(mrviz.InputError, match=message):
        call()
