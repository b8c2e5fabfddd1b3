"""Sketches: what they bound, how far their estimates are off, and that they say so."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mrviz
from mrviz import mappings
from mrviz.ntk import sketch_grams
from mrviz.programs import Border, Linear
from tests.ntk.common import close, conv_net, fill, uniform

CANVAS, IMAGE = (1, 6, 6), (1, 4, 4)


def make(kind=Linear, outputs=6, seed=1, mapping=None):
    source = mrviz.SourceModel(conv_net(CANVAS, outputs, seed), CANVAS)
    program = fill(kind(CANVAS, IMAGE).double(), seed)
    return mrviz.ReprogrammedModel(source, program, mapping or mappings.Identity())


def grams(model, x, **options):
    return list(sketch_grams(model, x, progress=False, **options))


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(2, 12),
    st.one_of(st.none(), st.integers(2, 5)),
    st.sampled_from([Linear, Border]),
)
def test_eigenvalues_interlace_those_of_the_whole(seed, size, directions, kind):
    model, x = make(kind, seed=seed), uniform(12, *IMAGE, seed=seed)
    whole = torch.linalg.eigvalsh(mrviz.ntk_gram(model, x, progress=False).matrix).flip(0)
    (sketch,) = grams(model, x, samples=[size], directions=directions, seed=seed)
    part = torch.linalg.eigvalsh(sketch.gram.matrix).flip(0)
    slack = 1e-9 * whole[0]
    assert (part <= whole[: len(part)] + slack).all()
    assert (part.flip(0) >= whole.flip(0)[: len(part)] - slack).all()


@pytest.mark.parametrize("reduce", ["full", "trace", "sum", 2])
def test_a_sketch_is_the_gram_of_its_samples(reduce):
    model, x = make(), uniform(10, *IMAGE)
    (sketch,) = grams(model, x, samples=[4], reduce=reduce)
    exact = mrviz.ntk_gram(model, x[sketch.samples], reduce=reduce, progress=False)
    assert close(sketch.gram.matrix, exact.matrix, 1e-12) and not sketch.exact


@pytest.mark.parametrize("trainable", [False, True])
def test_directions_are_those_of_the_outputs(trainable):
    mapping = mappings.LinearHead(mappings.Identity()) if trainable else None
    model, x = make(mapping=mapping), uniform(5, *IMAGE)
    full = mrviz.ntk_gram(model, x, progress=False).matrix.view(5, 6, 5, 6)
    (sketch,) = grams(model, x, samples=[5], directions=3)
    p = sketch.directions
    assert close(p @ p.T, torch.eye(3, dtype=p.dtype), 1e-12)
    expected = torch.einsum("ka,iajb,lb->ikjl", p, full, p).reshape(15, 15)
    assert close(sketch.gram.matrix, expected, 1e-11)
    (traced,) = grams(model, x, samples=[5], directions=3, reduce="trace")
    blocks = expected.view(5, 3, 5, 3).diagonal(dim1=1, dim2=3).mean(2)
    assert close(traced.gram.matrix, blocks, 1e-11)


@pytest.mark.parametrize("reduce", ["full", "trace"])
@pytest.mark.parametrize("directions", [None, 4])
def test_the_error_is_about_as_large_as_it_says(reduce, directions):
    model, x = make(), uniform(24, *IMAGE) * torch.linspace(0.2, 1, 24).view(-1, 1, 1, 1)
    true = float(mrviz.ntk_gram(model, x, reduce=reduce, progress=False).matrix.trace())
    scores = torch.tensor(
        [
            (s.trace - true) / s.trace_error
            for seed in range(60)
            for s in grams(model, x, samples=[8], directions=directions, reduce=reduce, seed=seed)
        ]
    )
    assert abs(float(scores.mean())) < 0.5 and 0.6 < float(scores.square().mean().sqrt()) < 1.6


def test_nothing_left_out_is_exact():
    model, x = make(), uniform(6, *IMAGE)
    *_, last = grams(model, x, samples=[3, 6])
    exact = mrviz.ntk_gram(model, x, progress=False)
    assert last.exact and last.trace_error == 0
    assert last.trace == pytest.approx(float(exact.matrix.trace()), rel=1e-12)
    assert close(last.gram.matrix, exact.matrix, 1e-13)


def test_later_sketches_use_the_jacobians_of_earlier_ones():
    model, x = make(), uniform(16, *IMAGE)
    found = grams(model, x, samples=[4, 8, 16], directions=2)
    assert [s.gram.info.computed for s in found] == [4, 4, 8]
    assert set(found[0].samples.tolist()) < set(found[1].samples.tolist())


def test_seeds_and_defaults():
    model, x = make(), uniform(16, *IMAGE)
    same = [grams(model, x, directions=2, seed=3) for _ in range(2)]
    assert [s.gram.order for s in same[0]] == [4, 8, 16]
    assert all(torch.equal(a.gram.matrix, b.gram.matrix) for a, b in zip(*same, strict=True))
    other = grams(model, x, directions=2, seed=4)
    assert not torch.equal(same[0][0].directions, other[0].directions)
    assert "2 of 16 samples, 2 of 6 output directions" in repr(other[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": [1]}, "from 2 to 8"),
        ({"samples": [9]}, "from 2 to 8"),
        ({"samples": []}, "from 2 to 8"),
        ({"directions": 1}, "directions must be from 2 to 5"),
        ({"directions": 6}, "leave it out to keep all"),
        ({"directions": 2, "reduce": "sum"}, "is one direction"),
        ({"reduce": "mean"}, "reduce must be one of"),
    ],
)
def test_numbers_that_do_not_fit(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        grams(make(), uniform(8, *IMAGE), **options)
