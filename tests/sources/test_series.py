import importlib.util

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import mrviz
from mrviz.errors import InputError
from mrviz.sources import load_source
from mrviz.sources.series import SeriesBlock
from mrviz.sources.training import SourceData, resized

needs_aeon = pytest.mark.skipif(
    not importlib.util.find_spec("aeon"), reason="aeon is not installed"
)
FAMILIES = ("fcn", "resnet1d")


def small(name, **options):
    given = {"depth": 2, "width": 3, "input_size": 12, "n_classes": 3, "progress": False}
    return load_source(name, **(given | options))


def layers(source, kind):
    return [m for m in source.module.modules() if isinstance(m, kind)]


def brute_force(model, x):
    """Θ from whole parameter Jacobians, float64."""
    parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
    jacobian = jacrev(lambda p: functional_call(model, p, (x,)).flatten())(parameters)
    rows = torch.cat([j.flatten(1) for j in jacobian.values()], 1)
    return rows @ rows.T


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_the_networks_are_those_of_wang_without_batch_norm(depth):
    fcn = load_source("fcn", depth=depth, width=4, progress=False)
    convolutions = layers(fcn, nn.Conv1d)
    assert [c.kernel_size[0] for c in convolutions] == [8, 5, 3, 3, 3][:depth]
    channels = {1: [4], 3: [4, 8, 4], 5: [4, 8, 8, 8, 4]}[depth]
    assert [c.out_channels for c in convolutions] == channels
    resnet = load_source("resnet1d", depth=depth, width=4, progress=False)
    blocks = layers(resnet, SeriesBlock)
    assert len(blocks) == depth
    assert all(
        [c.kernel_size[0] for c in b.branch if isinstance(c, nn.Conv1d)] == [8, 5, 3]
        for b in blocks
    )
    assert resnet.module[-1].in_features == (4 if depth == 1 else 8)
    for source in (fcn, resnet):
        assert not layers(source, nn.BatchNorm1d) and source.input_shape == (1, 128)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_length_of_the_series_is_kept_up_to_the_mean(name):
    source = small(name, input_size=9)
    inner = nn.Sequential(*list(source.module)[:-3])
    assert inner(torch.rand(2, 1, 9)).shape[-1] == 9


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("depth", [1, 8])
def test_outputs_stay_of_order_one_at_any_depth(name, depth):
    out = load_source(name, depth=depth, width=8, progress=False)(torch.rand(8, 1, 128))
    assert 0.01 < float(out.std(0).mean()) < 30 and bool(out.isfinite().all())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", ["structured", "contraction", "products"])
@pytest.mark.parametrize("inner", [None, 4])
def test_the_target_kernel_is_that_of_whole_jacobians(name, method, inner):
    source = small(name).double()
    program = mrviz.programs.Linear((1, 12), (1, 7))
    if inner is not None:
        program = mrviz.programs.Chain(
            mrviz.programs.Linear((1, inner), (1, 7)), mrviz.programs.Linear((1, 12), (1, inner))
        )
    model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity(2))
    x = torch.rand(4, 1, 7, dtype=torch.float64)
    gram = mrviz.ntk_gram(model, x, method=method, dtype=torch.float64, progress=False)
    torch.testing.assert_close(gram.matrix, brute_force(model, x))
    vector = torch.rand(8, dtype=torch.float64)
    operator = mrviz.ntk_operator(model, x, dtype=torch.float64)
    torch.testing.assert_close(operator @ vector, gram.matrix @ vector)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_source_kernel_is_that_of_whole_jacobians(name):
    source = small(name).double()
    x = torch.rand(3, 1, 12, dtype=torch.float64)
    gram = mrviz.source_ntk(source, x, reduce="trace", dtype=torch.float64, progress=False)
    source.module.requires_grad_(True)
    full = brute_force(source, x).view(3, 3, 3, 3)
    torch.testing.assert_close(gram.matrix, full.diagonal(dim1=1, dim2=3).mean(-1))


@pytest.mark.parametrize("name", FAMILIES)
def test_there_is_no_infinite_width_kernel(name):
    with pytest.raises(InputError, match="infinite-width"):
        mrviz.source_ntk(small(name), torch.rand(2, 1, 12), kind="infinite-width", progress=False)


def test_series_are_resized_by_averaging_what_shrinks():
    x = torch.arange(8.0)[None, None].expand(2, 3, -1)
    assert resized(x, 8) is x
    assert resized(x, 4).shape == (2, 3, 4)
    torch.testing.assert_close(resized(x, 4).mean(-1), x.mean(-1))
    torch.testing.assert_close(resized(x, 16)[..., 4:-4].diff(), torch.full((2, 3, 7), 0.5))
    noise = torch.rand(4, 1, 4000)
    assert float(resized(noise, 40).std()) < float(noise.std()) / 5


@needs_aeon
@pytest.mark.parametrize("name", FAMILIES)
def test_training_on_a_ucr_set_learns_and_repeats_from_the_cache(name, cache):
    options = {"width": 8, "trained_on": "ucr:ItalyPowerDemand", "epochs": 8, "progress": False}
    source = load_source(name, depth=2, **options)
    assert source.input_shape == (1, 24) and source.classes == ("1", "2")
    x, y = source.test_data
    accuracy = float((source(x).argmax(1) == y).double().mean())
    assert accuracy == source.training_report.test_accuracy > 0.8
    (written,) = (cache / "sources").glob("*.pt")
    assert ":" not in written.name
    stamp = written.stat().st_mtime_ns
    again = load_source(name, depth=2, **options)
    assert written.stat().st_mtime_ns == stamp and torch.equal(source(x), again(x))


@needs_aeon
def test_held_out_series_are_not_trained_on():
    data = SourceData.load("ucr:GunPoint", 64)
    rows = [{bytes(s.numpy().tobytes()) for s in x} for x, _ in (data.train, data.val, data.test)]
    assert not rows[0] & rows[1] and not (rows[0] | rows[1]) & rows[2]
    assert data.train[0].shape[1:] == (1, 64)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fcn", {"trained_on": "digits"}, "trained_on must be one of 'ucr:ACSF1'"),
        ("cnn", {"trained_on": "ucr:GunPoint"}, "trained_on must be one of 'digits', 'mnist-5k'"),
        ("fcn", {"groups": 2}, "groups does not apply"),
        ("fcn", {"horizon": 2}, "horizon does not apply"),
        ("resnet1d", {"epochs": 2}, "epochs applies only together with trained_on"),
        ("resnet1d", {"trained_on": "ucr:GunPoint", "n_classes": 5}, "n_classes=5 contradicts"),
    ],
)
def test_options_that_do_not_fit_are_errors(name, options, message):
    with pytest.raises(InputError) as caught:
        load_source(name, **options)
    assert message in str(caught.value)


def test_images_and_series_do_not_mix_by_name():
    series = mrviz.Target(torch.rand(6, 1, 9), [0, 1] * 3, torch.rand(2, 1, 9), [0, 1])
    images = mrviz.Target(torch.rand(6, 1, 4, 4), [0, 1] * 3, torch.rand(2, 1, 4, 4), [0, 1])
    with pytest.raises(InputError, match="the source takes series, but the target holds images"):
        mrviz.reprogram(small("fcn"), images, program="linear")
    cnn = load_source("cnn", width=2, input_size=8, progress=False)
    with pytest.raises(InputError, match="the source takes images, but the target holds series"):
        mrviz.reprogram(cnn, series, program="linear")
    own = mrviz.programs.Linear((1, 12), (1, 4, 4))
    assert mrviz.reprogram(small("fcn"), images, program=own).outputs == 2
    assert mrviz.reprogram(small("fcn"), series, program="border").outputs == 2
    with pytest.raises(InputError, match=r"scale|image"):
        mrviz.reprogram(small("fcn"), series, program="scale")
