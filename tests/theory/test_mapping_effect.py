"""By how much another mapping changes the kernel: definition, scale, and what stays the same."""

import pytest
import torch

import mrviz
from mrviz import mappings
from mrviz.programs import MAPPINGS
from mrviz.theory import MappingEffect, kernel_drift, mapping_effect
from tests.ntk.common import conv_net, uniform

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)
QUIET = {"progress": False}


def made(mapping="frequency"):
    source = mrviz.SourceModel(conv_net(CANVAS, 6, seed=1), CANVAS)
    x, y = uniform(12, *IMAGE), torch.arange(12) % 3
    target = mrviz.Target(x, y, x, y)
    return mrviz.reprogram(source, target, program="linear", mapping=mapping), target


@pytest.mark.parametrize("name", MAPPINGS)
def test_it_is_the_distance_of_the_two_grams(name):
    model, target = made("identity")
    found = mapping_effect(model, target, name, n=5, seed=4, **QUIET)
    other = mrviz.reprogram(model.source, target, program=model.program, mapping=name, seed=4)
    before, after = (mrviz.ntk_gram(m, target.x_train[:5], **QUIET) for m in (model, other))
    drift = kernel_drift(before, after)
    assert (found.relative, found.alignment) == (drift.relative, drift.alignment)
    assert found.scale == pytest.approx(float(after.matrix.norm() / before.matrix.norm()))
    assert found.relative == 0 or name != "identity"
    assert found.relative > 0.01 or name in ("identity", "frequency", "iterative")
    assert (found.mapping, found.instead_of) == (MAPPINGS[name].label, MAPPINGS["identity"].label)
    again = mapping_effect(model, target, name, gram=before, n=5, seed=4, **QUIET)
    assert again == found and found.mapping in again.describe()


def test_a_factor_changes_the_norm_but_not_the_alignment():
    model, target = made()
    found = mapping_effect(model, target, 3 * model.b, **QUIET)
    assert found.relative == pytest.approx(8) and found.scale == pytest.approx(9)
    assert found.alignment == pytest.approx(1) and "by 800 % of its norm" in found.describe()
    turned = mapping_effect(model, target, model.b[[1, 2, 0]], reduce="trace", **QUIET)
    assert turned.relative < 1e-12 and turned.alignment == pytest.approx(1)


def test_a_linear_probe_adds_the_kernel_of_its_matrix():
    model, target = made()
    found = mapping_effect(model, target, "linear_probe", reduce="trace", **QUIET)
    z = mrviz.ReprogrammedModel(model.source, model.program, mappings.Identity())
    z = z.predict(target.x_train)
    kernel = mrviz.ntk_gram(model, target.x_train, reduce="trace", **QUIET).matrix
    assert found.relative == pytest.approx(float((z @ z.T + 1).norm() / kernel.norm()))


def test_options_and_bad_input():
    model, target = made()
    a, b = (mapping_effect(model, target, "logit_average", m=m, **QUIET) for m in (1, 2))
    assert a.relative == 0 and b.relative > 0.01
    for call, message in (
        (lambda: mapping_effect(model, target, "frequency", lam=1, **QUIET), "lam"),
        (lambda: mapping_effect(model, target, mappings.Identity(2), **QUIET), "gives 2 outputs"),
        (lambda: mapping_effect(model, target, "random", n=13, **QUIET), "n=13"),
        (lambda: mapping_effect(3, target, "random"), "must be a ReprogrammedModel, got int"),
    ):
        with pytest.raises(mrviz.InputError, match=message):
            call()


def test_plain_values():
    effect = MappingEffect("a", "b", 0.034, 1.0, None)
    assert effect.describe() == "a instead of b changes the kernel by 3.4 % of its norm"
    assert effect.to_dict()["relative"] == 0.034 and "3.4 %" in repr(effect)
