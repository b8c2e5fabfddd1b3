"""The Jacobian cache, progress and cancellation."""

import threading

import pytest
import torch
from torch import nn

import mrviz
from mrviz import mappings
from mrviz.ntk import JacobianCache, cache, capacity_grams
from mrviz.programs import Border, Linear
from tests.ntk.common import close, conv_net, dense_net, uniform

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)


class Counting(nn.Module):
    """Counts samples that went forward."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.seen = 0

    def forward(self, u):
        if torch.is_grad_enabled():
            self.seen += len(u)
        return self.net(u)


def make(program=None, net=None):
    program = program or Border(CANVAS, IMAGE)
    source = mrviz.SourceModel(net or conv_net(CANVAS, 3, 1), CANVAS)
    return mrviz.ReprogrammedModel(source, program, mappings.Identity())


def test_second_call_computes_nothing():
    net = Counting(conv_net(CANVAS, 3, 1))
    model, x = make(net=net), uniform(4, *IMAGE)
    first = mrviz.ntk_gram(model, x)
    seen = net.seen
    second = mrviz.ntk_gram(model, x)
    assert (first.info.computed, first.info.cached) == (4, 0)
    assert (second.info.computed, second.info.cached) == (0, 4)
    assert net.seen == seen == 4 + 1  # one more, once, to measure what a sample takes
    assert torch.equal(first.matrix, second.matrix)
    assert close(second.matrix, mrviz.ntk_gram(model, x, method="contraction").matrix)


def test_only_new_samples_are_computed_and_another_chunk_size_finds_the_old_ones():
    model, x = make(), uniform(5, *IMAGE)
    mrviz.ntk_gram(model, x[:3])
    more = mrviz.ntk_gram(model, x[[4, 1, 0, 2, 3]], chunk_size=2)
    assert (more.info.computed, more.info.cached) == (2, 3)
    cache.clear()
    assert cache.n_bytes == 0
    fresh = mrviz.ntk_gram(model, x[[4, 1, 0, 2, 3]])
    assert fresh.info.computed == 5
    assert close(more.matrix, fresh.matrix, 1e-13)


def test_other_capacity_and_a_sweep_reuse_the_jacobians():
    model, x = make(), uniform(3, *IMAGE)
    mrviz.ntk_gram(model, x)
    ((_, gram),) = capacity_grams(model, x, [1])
    assert (gram.info.computed, gram.info.cached) == (0, 3)


@pytest.mark.parametrize("reduce", ["trace", "sum", 0])
def test_reductions_do_not_mix_in_the_cache(reduce):
    model, x = make(), uniform(3, *IMAGE)
    for other in ("full", "sum", 1, 2):
        mrviz.ntk_gram(model, x, reduce=other)
    found = mrviz.ntk_gram(model, x, reduce=reduce)
    reference = mrviz.ntk_gram(model, x, reduce=reduce, method="contraction")
    assert close(found.matrix, reference.matrix)


def noticed(model, x, before):
    after = mrviz.ntk_gram(model, x)
    assert after.info.computed == len(x)
    assert close(after.matrix, mrviz.ntk_gram(model, x, method="contraction").matrix)
    assert not close(after.matrix, before.matrix, 1e-3)


def test_weights_changed_in_place_are_noticed():
    net = conv_net(CANVAS, 3, 1)
    model, x = make(net=net), uniform(3, *IMAGE)
    before = mrviz.ntk_gram(model, x)
    with torch.no_grad():
        net[0].weight.mul_(1.5)
    noticed(model, x, before)


def test_weights_changed_behind_autograd_are_noticed():
    net = conv_net(CANVAS, 3, 1)
    model, x = make(net=net), uniform(3, *IMAGE)
    before = mrviz.ntk_gram(model, x)
    net[3].weight.data[0, 0] += 3.0
    noticed(model, x, before)


class Tempered(nn.Module):
    """Outputs depend on a number and a buffer that ``state_dict`` does not hold."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.temperature = 1.0
        self.register_buffer("gain", torch.ones(3).double(), persistent=False)

    def forward(self, u):
        return self.net(u) * self.gain / self.temperature


def test_an_attribute_changed_is_noticed():
    module = Tempered(conv_net(CANVAS, 3, 1))
    model, x = make(net=module), uniform(3, *IMAGE)
    before = mrviz.ntk_gram(model, x)
    module.temperature = 2.0
    noticed(model, x, before)


def test_a_buffer_outside_the_state_dict_changed_is_noticed():
    module = Tempered(conv_net(CANVAS, 3, 1))
    model, x = make(net=module), uniform(3, *IMAGE)
    before = mrviz.ntk_gram(model, x)
    module.gain[1] = 4.0
    noticed(model, x, before)


def test_a_class_of_the_same_name_with_another_forward_is_noticed():
    """A notebook cell is edited and run again: same class name, same weights."""

    def cell(squash):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = dense_net(CANVAS, 3, 1)

            def forward(self, u):
                return squash(self.body(u))

        return Net()

    x = uniform(3, *IMAGE)
    before = mrviz.ntk_gram(make(net=cell(torch.tanh)), x)
    noticed(make(net=cell(torch.sin)), x, before)


def test_changed_programs_and_mappings_are_noticed():
    program = Border(CANVAS, IMAGE)
    model, x = make(program), uniform(3, *IMAGE)
    before = mrviz.ntk_gram(model, x)
    with torch.no_grad():
        program.delta.add_(uniform(*CANVAS))
    noticed(model, x, before)
    other = mrviz.ReprogrammedModel(model.source, program, [[0.0, 0.0, 1.0], [1.0, 2.0, 0.0]])
    gram = mrviz.ntk_gram(other, x)
    assert gram.info.computed == 3
    assert close(gram.matrix, mrviz.ntk_gram(other, x, method="contraction").matrix)


def test_normalisations_are_told_apart():
    net, x = conv_net(CANVAS, 3, 1), uniform(3, *IMAGE)
    grams = []
    for normalize in (None, lambda u: u * 2, lambda u: u * 3, ([0.5], [0.5]), ([0.5], [0.25])):
        source = mrviz.SourceModel(net, CANVAS, normalize=normalize)
        model = mrviz.ReprogrammedModel(source, Border(CANVAS, IMAGE), mappings.Identity())
        grams.append(mrviz.ntk_gram(model, x))
        assert grams[-1].info.computed == 3
        reference = mrviz.ntk_gram(model, x, method="contraction")
        assert close(grams[-1].matrix, reference.matrix)


def test_byte_limit_is_respected_and_the_least_recently_used_go_first():
    model, x = make(), uniform(4, *IMAGE)
    one = 3 * 25 * 8
    cache.limit = 3 * one
    mrviz.ntk_gram(model, x[:3], chunk_size=1)
    assert cache.n_bytes == 3 * one
    mrviz.ntk_gram(model, x[:1])  # 0 is now the most recent, 1 the oldest
    mrviz.ntk_gram(model, x[3:])
    assert cache.n_bytes == 3 * one
    assert mrviz.ntk_gram(model, x[[0, 2, 3]]).info.computed == 0
    assert mrviz.ntk_gram(model, x[1:2]).info.computed == 1


def test_nothing_is_kept_where_nothing_fits():
    model, x = make(), uniform(3, *IMAGE)
    cache.limit = 3 * 25 * 8 - 1
    first, second = mrviz.ntk_gram(model, x), mrviz.ntk_gram(model, x)
    assert cache.n_bytes == 0 and second.info.computed == 3
    assert torch.equal(first.matrix, second.matrix)


def test_a_lower_limit_takes_effect_at_once():
    kept = JacobianCache(1000)
    for k in range(5):
        kept.put(bytes([k]), torch.zeros(25, dtype=torch.float64))
    assert kept.n_bytes == 1000
    kept.limit = 450
    assert kept.n_bytes == 400
    assert kept.get(b"\x04") is not None and kept.get(b"\x00") is None


def test_cached_jacobians_are_out_of_reach_of_their_owner():
    kept = JacobianCache()
    mine = torch.ones(3)
    kept.put(b"a", mine)
    kept.put(b"a", mine * 5)
    mine.zero_()
    assert kept.get(b"a").tolist() == [1, 1, 1]
    assert kept.n_bytes == 12


class Recorder:
    def __init__(self):
        self.calls = []

    def __call__(self, done, total, label):
        self.calls.append((done, total, label))


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
def test_progress_counts_to_the_total(method):
    recorder = Recorder()
    mrviz.ntk_gram(make(), uniform(5, *IMAGE), chunk_size=2, method=method, progress=recorder)
    by_label = {}
    for done, total, label in recorder.calls:
        by_label.setdefault(label, []).append((done, total))
    assert by_label["Gram tiles"][0] == (0, 6) and by_label["Gram tiles"][-1] == (6, 6)
    for steps in by_label.values():
        assert [d for d, _ in steps] == sorted(d for d, _ in steps)
        assert steps[-1][0] == steps[-1][1] and len({t for _, t in steps}) == 1


def test_progress_of_a_sweep_counts_to_the_total():
    recorder = Recorder()
    canvas = (1, 9, 9)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(conv_net(canvas, 2), canvas), Border(canvas, IMAGE), mappings.Identity()
    )
    list(capacity_grams(model, uniform(2, *IMAGE), progress=recorder))
    assert recorder.calls[-1][:2] == (3, 3)


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
def test_cancelled_before_the_start(method):
    flag = threading.Event()
    flag.set()
    with pytest.raises(mrviz.Cancelled):
        mrviz.ntk_gram(make(), uniform(3, *IMAGE), method=method, cancel=flag)


@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
def test_cancelled_in_the_middle(method):
    flag = threading.Event()
    model, x = make(), uniform(6, *IMAGE)

    def stop(done, total, label):
        assert done <= 2
        if done == 2:
            flag.set()

    with pytest.raises(mrviz.Cancelled, match="cancel"):
        mrviz.ntk_gram(model, x, chunk_size=2, method=method, cancel=flag, progress=stop)
    gram = mrviz.ntk_gram(model, x, method=method)
    if method == "structured":
        assert (gram.info.computed, gram.info.cached) == (2, 4), "finished work is kept"
    cache.clear()
    assert close(gram.matrix, mrviz.ntk_gram(model, x).matrix)


def test_cancelled_between_backward_passes_of_one_chunk():
    class Flag:
        asked = 0

        def is_set(self):
            self.asked += 1
            return self.asked > 3

    net = Counting(conv_net(CANVAS, 3, 1))
    with pytest.raises(mrviz.Cancelled):
        mrviz.ntk_gram(make(net=net), uniform(6, *IMAGE), cancel=Flag())
    assert net.seen == 6 + 1  # one sample to measure what it takes


def test_a_sweep_can_be_cancelled_between_capacities():
    flag = threading.Event()
    sweep = capacity_grams(make(), uniform(2, *IMAGE), cancel=flag)
    canvas = (1, 9, 9)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(conv_net(canvas, 2), canvas), Border(canvas, IMAGE), mappings.Identity()
    )
    sweep = capacity_grams(model, uniform(2, *IMAGE), cancel=flag)
    assert next(sweep)[0] == 1
    flag.set()
    with pytest.raises(mrviz.Cancelled):
        list(sweep)


def test_transfer_conditions_can_be_cancelled():
    flag = threading.Event()
    flag.set()
    x = uniform(4, *IMAGE)
    target = mrviz.Target(x, [0, 1, 2, 0], x, [0, 1, 2, 0])
    with pytest.raises(mrviz.Cancelled):
        mrviz.transfer_conditions(make(Linear(CANVAS, IMAGE)), target, cancel=flag)
