"""The reprogrammed model and the call that builds it."""

import pytest
import torch
from torch import nn

import mrviz
from mrviz import mappings
from mrviz.programs import Border, Linear
from tests.ntk.common import close, conv_net, dense_net, uniform

CANVAS, IMAGE = (1, 6, 6), (1, 4, 4)


def source(outputs=5):
    return mrviz.SourceModel(conv_net(CANVAS, outputs, 1), CANVAS)


def task(n=12, classes=3, shape=IMAGE):
    x = uniform(n, *shape)
    y = [k % classes for k in range(n)]
    return mrviz.Target(x, y, x, y)


def test_outputs_are_mapped_source_outputs_of_programmed_inputs():
    b = uniform(2, 5, seed=3)
    frozen, program = source(), Border(CANVAS, IMAGE)
    model = mrviz.ReprogrammedModel(frozen, program, b)
    x = uniform(3, *IMAGE)
    expected = frozen.module(program(x)) @ b.T
    assert close(model(x).detach(), expected.detach(), 1e-14)
    assert close(model.predict(x, batch_size=2), expected.detach(), 1e-14)
    assert model.outputs == 2 and model.n_parameters == 20


def test_only_the_program_is_trainable():
    model = mrviz.reprogram(source(), task(), program="linear_border")
    model(uniform(2, *IMAGE)).sum().backward()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"program.first.weight", "program.first.bias", "program.second.delta"}
    assert all(p.grad is None for p in model.source.parameters())


def test_frequency_mapping_counts_on_the_training_set():
    frozen, target = source(), task(30)
    model = mrviz.reprogram(frozen, target, program="linear", seed=2)
    program = Linear(CANVAS, IMAGE, seed=2).double()
    predicted = frozen(program(target.x_train.double())).argmax(1)
    counts = torch.zeros(3, 5, dtype=torch.long)
    for y, s in zip(target.y_train.tolist(), predicted.tolist(), strict=True):
        counts[y, s] += 1
    assert model.mapping == mappings.Frequency(mappings.Frequency.assign(counts))


def test_reprogram_options():
    model = mrviz.reprogram(source(), task(), program="border", mapping="identity", width=1)
    assert model.capacity == 1 and model.mapping == mappings.Identity(3)
    own = Linear(CANVAS, IMAGE)
    matrix = torch.eye(5)[[4, 3, 2]]
    model = mrviz.reprogram(source(), task(), program=own, mapping=matrix)
    assert model.program is own and torch.equal(model.b, matrix.double())
    a, b, c = (mrviz.reprogram(source(), task(), program="linear", seed=s) for s in (1, 1, 2))
    assert torch.equal(a.program.weight, b.program.weight)
    assert not torch.equal(a.program.weight, c.program.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"program": "vp"}, "program must be one of border"),
        ({"mapping": "best"}, "mapping must be one of frequency, identity"),
        ({"program": "border", "rank": 3}, "has no option rank"),
        ({"program": Linear(CANVAS, IMAGE), "width": 3}, "apply only to programs chosen by name"),
        ({"program": "border", "width": 9}, "outside 1 to 1"),
        ({"program": "border", "image_size": 7}, "does not fit into"),
        ({"mapping": torch.ones(3, 4)}, "has 4 columns, but the source has 5 outputs"),
        ({"program": Linear((1, 5, 5), IMAGE)}, r"makes inputs of shape \(1, 5, 5\), but source"),
        ({"program": Linear(CANVAS, (1, 3, 3))}, r"but \(1, 3, 3\) is expected"),
        ({"program": 3}, "program must be a module"),
    ],
)
def test_reprogram_with_what_does_not_fit(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.reprogram(source(), task(), **options)


@pytest.mark.parametrize("mapping", ["frequency", "identity"])
def test_more_classes_than_source_outputs(mapping):
    with pytest.raises(mrviz.InputError, match="2 outputs, too few for 3 target classes"):
        mrviz.reprogram(source(2), task(), mapping=mapping)


def test_image_larger_than_the_source():
    with pytest.raises(mrviz.InputError, match="source with a larger input_size"):
        mrviz.reprogram(source(), task(shape=(1, 8, 8)))


def test_frequency_mapping_of_real_valued_outputs():
    x = uniform(6, *IMAGE)
    target = mrviz.Target(x, uniform(6, 2), x, uniform(6, 2))
    with pytest.raises(mrviz.InputError, match="use mapping='identity' or a matrix"):
        mrviz.reprogram(source(), target)
    assert mrviz.reprogram(source(), target, mapping="identity").outputs == 2


def test_model_of_what_is_no_source_or_mapping():
    program = Linear(CANVAS, IMAGE)
    with pytest.raises(mrviz.InputError, match=r"wrap your module as mrviz.SourceModel"):
        mrviz.ReprogrammedModel(dense_net(CANVAS), program, mappings.Identity())
    with pytest.raises(mrviz.InputError, match=r"needs data: use mrviz.reprogram"):
        mrviz.ReprogrammedModel(source(), program, "frequency")


def test_capacity_of_a_model():
    model = mrviz.reprogram(source(), task(), program="border", image_size=2)
    assert model.capacity == 2
    model.capacity = 1
    assert model.program.capacity == 1 and model.n_parameters == 20
    for program in ("linear", nn.Conv2d(1, 1, 3, padding=2)):
        other = mrviz.reprogram(source(), task(), program=program)
        assert other.capacity is None
        with pytest.raises(mrviz.InputError, match="has no capacity to set"):
            other.capacity = 2


def test_frequency_mapping_does_not_see_dropout():
    net = nn.Sequential(nn.Dropout(0.9), conv_net(CANVAS, 5, 1))
    noisy = mrviz.SourceModel(net, CANVAS).train()
    target = task(30)
    quiet = mrviz.reprogram(source(), target, program="linear")
    model = mrviz.reprogram(noisy, target, program="linear")
    assert model.mapping == quiet.mapping and net[0].training
