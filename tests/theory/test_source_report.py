"""Spectra of K_S and λ_min over depth: the same numbers as measured one by one."""

import pytest
import torch

import mrviz
from mrviz.errors import Cancelled, InputError
from mrviz.ntk.source_kernel import source_ntk
from mrviz.sources.families import FAMILIES
from mrviz.theory import kernel_strength, source_report, strength_over_depth
from mrviz.theory.strength import draw_samples

QUIET = {"progress": False}


def images(n=24, side=8, channels=1, classes=4):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, channels, side, side, generator=generator), torch.arange(n) % classes


def load(family, depth, width, data, seed=0):
    x, y = data
    sized = {} if (family, depth) == ("dnn", 1) else {"width": width}
    return mrviz.load_source(
        family,
        depth=depth,
        input_size=x.shape[-1],
        channels=x.shape[1],
        n_classes=int(y.max()) + 1,
        seed=seed,
        progress=False,
        **sized,
    )


@pytest.mark.parametrize(
    ("family", "depths"), [("dnn", (1, 3)), ("cnn", (2, 1)), ("vgg", (1,)), ("resnet", (1,))]
)
def test_points_are_those_measured_one_by_one(family, depths):
    data = images(channels=2)
    options = {"per_class": 3, "draws": 2, "seed": 4}
    points = strength_over_depth(family, depths, data, width=6, **options, **QUIET)
    assert tuple(p.depth for p in points) == depths
    for point in points:
        source = load(family, point.depth, 6, data)
        kinds = ["empirical", "infinite-width"] if family in ("dnn", "cnn") else ["empirical"]
        assert [s.kind for s in point.strengths] == kinds
        for kind in kinds:
            assert point.of(kind) == kernel_strength(source, data, kind=kind, **options, **QUIET)
    assert points[0].of("other") is None


def test_draws_of_several_weight_seeds_come_one_after_the_other():
    data = images()
    options = {"per_class": 2, "draws": 2}
    (point,) = strength_over_depth(
        "dnn", [2], data, width=8, weight_seeds=(3, 7), **options, **QUIET
    )
    parts = [
        kernel_strength(load("dnn", 2, 8, data, seed=seed), data, **options, **QUIET)
        for seed in (3, 7)
    ]
    assert point.of("empirical").smallest == parts[0].smallest + parts[1].smallest
    assert len(point.of("infinite-width").smallest) == 2


def test_images_are_shrunk_to_the_size_asked_for_or_the_default():
    big = images(side=40)
    options = {"kinds": ("infinite-width",), "per_class": 2, "draws": 1}
    found = {
        size: strength_over_depth("dnn", [2], big, input_size=size, **options, **QUIET)[0].strengths
        for size in (None, 32, 10)
    }
    assert found[None] == found[32] != found[10]
    assert strength_over_depth("cnn", [1], big, **options, **QUIET)[0].strengths == (
        strength_over_depth("cnn", [1], big, input_size=16, **options, **QUIET)[0].strengths
    )


def test_the_depths_of_the_family_are_the_default():
    options = {"kinds": ("infinite-width",), "per_class": 1, "draws": 1}
    points = strength_over_depth("dnn", None, images(), **options, **QUIET)
    chosen = FAMILIES["dnn"].ranges["depth"]
    assert [p.depth for p in points] == list(range(chosen.low, chosen.high + 1))
    means = [p.strengths[0].mean for p in points[1:]]
    assert means == sorted(means)  # the paper: λ_min grows with depth


def test_points_come_as_they_are_measured_and_steps_are_counted():
    seen, steps = [], []
    points = strength_over_depth(
        "dnn",
        (2, 3),
        images(),
        width=4,
        per_class=1,
        draws=1,
        on_point=lambda p: seen.append((p, len(steps))),
        progress=lambda done, total, label: steps.append((done, total)),
    )
    assert [p for p, _ in seen] == list(points)
    assert seen[0][1] < seen[1][1] and steps[-1] == (4, 4)
    values = points[0].to_dict()
    assert values["depth"] == 2 and values["strengths"][0]["mean"] == points[0].strengths[0].mean


def test_stops_when_cancelled():
    class Flag:
        on = False

        def is_set(self):
            return self.on

    flag, seen = Flag(), []

    def point(p):
        seen.append(p)
        flag.on = True

    with pytest.raises(Cancelled):
        strength_over_depth(
            "dnn", (2, 3), images(), width=4, per_class=1, on_point=point, cancel=flag, **QUIET
        )
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "mlp"}, "family must be one of"),
        ({"depths": []}, "at least one value each"),
        ({"depths": [0]}, "depths must be at least 1"),
        ({"weight_seeds": ()}, "at least one value each"),
        ({"kinds": ("exact",)}, "kinds must be one of"),
        ({"kinds": "empirical"}, "kinds must be one or more of"),
        ({"family": "vgg", "kinds": ("infinite-width",)}, "no infinite-width kernel .* 'vgg'"),
        ({"data": (torch.rand(4, 9), torch.arange(4))}, "must hold images"),
        ({"input_size": 0}, "input_size must be at least 1"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    given = {"family": "dnn", "depths": [2], "data": images(), **options}
    with pytest.raises(InputError, match=message):
        strength_over_depth(**given, **QUIET)


def test_a_report_has_both_spectra_where_there_are_both():
    x, y = images(60)
    source = load("dnn", 2, 8, (x, y))
    found = source_report(source, (x, y), per_class=3, draws=2, seed=5, **QUIET)
    assert [k.kind for k in found.kernels] == ["empirical", "infinite-width"]
    assert found.strength == mrviz.theory.source_strength(source, data=(x, y))
    for kernel in found.kernels:
        for spec, pick in zip(kernel.spectra, draw_samples(y, 3, 2, 5), strict=True):
            gram = source_ntk(source, x[pick], kind=kernel.kind, dtype=torch.float64, **QUIET)
            expected = torch.linalg.eigvalsh(gram.matrix).flip(0)
            assert torch.allclose(spec.eigenvalues, expected, rtol=1e-9, atol=1e-12)
        assert kernel.strength == kernel_strength(
            source, (x, y), kind=kernel.kind, per_class=3, draws=2, seed=5, **QUIET
        )
    values = found.to_dict()
    assert values["strength"]["n"] == 60 and len(values["kernels"][0]["spectra"]) == 2
    assert "infinite-width λ_min[K_S]" in repr(found) and found.notes == ()


def test_a_report_says_what_is_missing():
    data = images()
    found = source_report(load("vgg", 1, 4, data), data, per_class=2, draws=1, **QUIET)
    assert [k.kind for k in found.kernels] == ["empirical"]
    assert found.notes == ("there is no infinite-width kernel for this source's architecture",)
    with pytest.raises(InputError, match="need data of its own task"):
        source_report(load("dnn", 2, 4, data), **QUIET)


def test_a_source_in_the_kernel_regime_brings_its_own_kernel():
    x, y = images(12, 4)
    regime = mrviz.theory.KernelRegimeSource(mrviz.theory.WideKernel(depth=2), x, y, ridge=0.1)
    source = mrviz.SourceModel(regime, (1, 4, 4))
    (kernel,) = source_report(source, (x, y), **QUIET).kernels
    assert kernel.kind == "kernel regime" and kernel.order == 12
    expected = torch.linalg.eigvalsh(regime.gram.double()).flip(0)
    assert torch.allclose(kernel.spectra[0].eigenvalues, expected, atol=1e-10)
