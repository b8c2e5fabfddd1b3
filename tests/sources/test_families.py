import math

import pytest
import torch
from torch import nn

from mrviz.errors import Cancelled, InputError
from mrviz.sources import SOURCES, load_source, source_names
from mrviz.sources.families import ResidualBlock


class Flag:
    def is_set(self):
        return True


def layers(source, kind):
    return [m for m in source.module.modules() if isinstance(m, kind)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dnn", {"depth": 4, "width": 300, "input_size": 16}),
        ("cnn", {"depth": 2, "width": 64, "input_size": 8}),
        ("vgg", {"depth": 2, "width": 48, "groups": 2, "input_size": 8}),
        ("resnet", {"depth": 2, "width": 48, "groups": 2, "input_size": 8}),
        ("fcn", {"depth": 3, "width": 64, "input_size": 8}),
        ("resnet1d", {"depth": 2, "width": 32, "input_size": 8}),
    ],
)
def test_weights_have_variance_two_over_fan_in_and_biases_one_tenth(name, options):
    source = load_source(name, **options, n_classes=200)
    scaled, biases = [], []
    for layer in layers(source, nn.Linear | nn.Conv1d | nn.Conv2d):
        scaled.append((layer.weight * math.sqrt(layer.weight[0].numel())).flatten())
        biases.append(layer.bias)
    weights, biases = torch.cat(scaled), torch.cat(biases)
    for values, variance in ((weights, 2.0), (biases, 0.1)):
        error = variance * math.sqrt(2 / values.numel())
        assert abs(float(values.var()) - variance) < 5 * error
        assert abs(float(values.mean())) < 5 * math.sqrt(variance / values.numel())


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_counts_the_layers_that_the_docstring_says(depth):
    small = {"depth": depth, "width": 4, "input_size": 8}
    dnn = load_source("dnn", **({"depth": 1, "input_size": 8} if depth == 1 else small))
    assert len(layers(dnn, nn.Linear)) == depth
    cnn = load_source("cnn", **small)
    assert len(layers(cnn, nn.Conv2d)) == depth and len(layers(cnn, nn.Linear)) == 1
    vgg = load_source("vgg", groups=3, **small)
    assert len(layers(vgg, nn.Conv2d)) == 3 * depth and len(layers(vgg, nn.MaxPool2d)) == 3
    assert max(c.out_channels for c in layers(vgg, nn.Conv2d)) == 16
    resnet = load_source("resnet", groups=3, **small)
    assert len(layers(resnet, ResidualBlock)) == 3 * depth
    assert sum(b.branch[0].stride == (2, 2) for b in layers(resnet, ResidualBlock)) == 2
    for source in (dnn, cnn, vgg, resnet):
        assert not layers(source, nn.BatchNorm2d)


def test_a_dnn_of_depth_one_is_affine():
    source = load_source("dnn", depth=1, input_size=4)
    a, b = torch.rand(2, 5, 1, 4, 4)
    torch.testing.assert_close(source((a + b) / 2), (source(a) + source(b)) / 2)


@pytest.mark.parametrize("name", ["cnn", "vgg", "resnet"])
@pytest.mark.parametrize("depth", [1, 10])
def test_outputs_stay_of_order_one_at_any_depth(name, depth):
    out = load_source(name, depth=depth, width=8, input_size=16)(torch.rand(8, 1, 16, 16))
    assert 0.05 < float(out.std()) < 10


def test_the_seed_decides_the_weights_and_leaves_torch_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    same = [load_source("cnn", width=4, input_size=8, seed=3).fingerprint() for _ in range(2)]
    other = load_source("cnn", width=4, input_size=8, seed=4).fingerprint()
    assert same[0] == same[1] != other
    assert torch.equal(before, torch.get_rng_state())


def test_untrained_sources_see_inputs_between_minus_one_and_one():
    source = load_source("dnn", depth=1, input_size=2)
    torch.testing.assert_close(source(torch.full((1, 1, 2, 2), 0.5))[0], source.module[1].bias)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vggg", {}, "'vgg'"),
        ("dnn", {"groups": 2}, "groups does not apply to 'dnn'; its options are depth, width"),
        ("cnn", {"groups": 2}, "groups does not apply"),
        ("cnn", {"weights": "random"}, "weights does not apply"),
        ("dnn", {"depth": 1, "width": 64}, "width does not apply"),
        ("dnn", {"depth": 0}, "depth must be at least 1"),
        ("dnn", {"depth": 2.5}, "depth must be an integer"),
        ("dnn", {"depth": True}, "depth must be an integer"),
        ("dnn", {"seed": -1}, "seed must be at least 0"),
        ("dnn", {"epochs": 3}, "epochs applies only together with trained_on"),
        ("cnn", {"trained_on": "digit"}, "Did you mean 'digits'"),
        ("cnn", {"trained_on": "digits", "channels": 3}, "channels=3 contradicts"),
        ("cnn", {"trained_on": "digits", "n_classes": 2}, "n_classes=2 contradicts"),
        ("vgg", {"groups": 4, "input_size": 15}, "input_size must be at least 16, got 15"),
        ("resnet", {"groups": 4, "input_size": 7}, "input_size must be at least 8, got 7"),
        ("efficientnet-lite0", {"depth": 2}, "its options are input_size, weights"),
        ("efficientnet-lite0", {"trained_on": "digits"}, "trained_on does not apply"),
        ("efficientnet-lite0", {"n_classes": 10}, "n_classes does not apply"),
        ("efficientnet-lite0", {"input_size": 31}, "input_size must be at least 32"),
        ("efficientnet-lite0", {"weights": "randm"}, "Did you mean 'random'"),
    ],
)
def test_options_that_do_not_fit_are_errors(name, options, message):
    with pytest.raises(InputError) as caught:
        load_source(name, **options)
    assert message in str(caught.value)


def test_smallest_inputs_that_groups_allow_work():
    assert load_source("vgg", groups=3, input_size=8, width=2).outputs == 10
    assert load_source("resnet", groups=3, input_size=4, width=2).outputs == 10


@pytest.mark.parametrize("name", ["dnn", "efficientnet-lite0"])
def test_cancel_and_progress(name):
    with pytest.raises(Cancelled):
        load_source(name, cancel=Flag(), progress=False)
    steps = []
    load_source(name, progress=lambda done, total, label: steps.append((done, total)))
    assert steps == [(0, 1), (1, 1)]


def test_the_registry_describes_what_load_source_does():
    assert source_names() == tuple(SOURCES) and "cnn" in SOURCES
    for name in ("dnn", "cnn", "vgg", "resnet", "fcn", "resnet1d"):
        lowest = {
            key: r.low
            for key, r in SOURCES[name].ranges.items()
            if key != "epochs" and not (name == "dnn" and key == "width")
        }
        lowest["input_size"] = max(lowest["input_size"], 2)
        assert load_source(name, **lowest).outputs == lowest["n_classes"]
        for r in SOURCES[name].ranges.values():
            assert r.low <= r.default <= r.high and r.help
