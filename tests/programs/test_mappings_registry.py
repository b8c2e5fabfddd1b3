"""Mappings by name: what each declares, options, and what people are told."""

import itertools

import pytest
import torch

import mrviz
from mrviz.programs import MAPPINGS, PROGRAMS, Linear
from mrviz.programs.mappings import (
    Bayesian,
    BayesianPlus,
    Frequency,
    Identity,
    Iterative,
    LinearHead,
    LogitAverage,
    MappingData,
    ProbabilityAverage,
    Random,
    build_mapping,
)
from tests.ntk.common import close, conv_net, uniform

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)
KINDS = {
    "frequency": Frequency,
    "identity": Identity,
    "random": Random,
    "iterative": Iterative,
    "bayesian": Bayesian,
    "bayesian_plus": BayesianPlus,
    "probability_average": ProbabilityAverage,
    "logit_average": LogitAverage,
    "linear_probe": LinearHead,
}


def source(outputs=9):
    return mrviz.SourceModel(conv_net(CANVAS, outputs, seed=1), CANVAS)


def task(n=24, y=None):
    x = uniform(n, *IMAGE)
    y = torch.arange(n) % 3 if y is None else y
    return mrviz.Target(x, y, x, y)


def build(mapping, **options):
    return mrviz.reprogram(source(), task(), program="linear", mapping=mapping, **options)


def source_outputs(model):
    return mrviz.ReprogrammedModel(model.source, model.program, Identity()).predict(task().x_train)


@pytest.mark.parametrize("name", MAPPINGS)
def test_every_mapping_can_be_chosen_by_name_and_is_what_it_declares(name):
    model, spec = build(name), MAPPINGS[name]
    assert spec.name == name and spec.kind is KINDS[name] and type(model.mapping) is KINDS[name]
    assert spec.label == model.mapping.label and len(spec.help) > 15
    assert spec.trainable == any(p.requires_grad for p in model.head.parameters())
    assert spec.refreshes == hasattr(model.mapping, "refresh")
    assert spec.acts_on in ("logits", "probabilities")
    assert model.weights.shape == (3, 9) and model.outputs == 3
    z = source_outputs(model)
    linear = z @ model.weights.double().T
    assert spec.has_matrix == close(model.predict(task().x_train), linear, 1e-12)
    x = task().x_train[:3]
    gram = mrviz.ntk_gram(model, x, progress=False)
    assert close(gram.matrix, mrviz.ntk_gram(model, x, method="contraction", progress=False).matrix)


def test_the_registry_is_complete_and_labels_differ():
    assert set(MAPPINGS) == set(KINDS)
    labels = [spec.label for spec in MAPPINGS.values()]
    assert len(set(labels)) == len(labels) and not any("_" in label for label in labels)
    assert [name for name, spec in MAPPINGS.items() if spec.refreshes] == [
        *("iterative", "bayesian", "bayesian_plus")
    ]
    assert [name for name, spec in MAPPINGS.items() if spec.trainable] == ["linear_probe"]
    assert [n for n, s in MAPPINGS.items() if not s.has_matrix] == ["probability_average"]


def test_no_option_of_a_mapping_is_one_of_a_program_too():
    of_programs = {name for spec in PROGRAMS.values() for name in spec.options}
    for spec in MAPPINGS.values():
        assert not (set(spec.options) - {"seed"}) & of_programs


def test_options_reach_the_mapping():
    z, y = source_outputs(build("identity")), task().y_train
    for lam in (0, 3):
        assert torch.equal(build("bayesian", lam=lam).b, Bayesian.fit(z, y, 3, lam=lam).matrix(9))
    model = build("bayesian_plus", ratio=1, lam=0.5)
    assert torch.equal(model.b, BayesianPlus.fit(z, y, 3, lam=0.5, ratio=1).matrix(9))
    assert build("logit_average", m=2, assignment="consecutive").mapping == LogitAverage(
        [(0, 1), (2, 3), (4, 5)]
    )
    assert build("probability_average").mapping.assignment == ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    one = build("logit_average", m=1, assignment="frequency").mapping
    assert [s for (s,) in one.assignment] == list(Frequency.fit(z, y, 3).assignment)


def test_options_of_program_and_mapping_together():
    model = mrviz.reprogram(
        source(), task(), program="border", mapping="probability_average", width=1, m=2, seed=3
    )
    assert model.capacity == 1 and model.mapping.m == 2
    own = mrviz.reprogram(
        source(), task(), program=Linear(CANVAS, IMAGE), mapping="bayesian", lam=0
    )
    assert own.mapping.lam == 0


def test_seeds_reach_mappings_that_are_drawn():
    for name, options in (
        ("random", {}),
        ("logit_average", {"assignment": "random", "m": 2}),
        ("probability_average", {"assignment": "random", "m": 2}),
        ("linear_probe", {"start": "random"}),
        ("linear_probe", {"start": "uniform"}),
    ):
        a, b, c = (build(name, seed=seed, **options).weights for seed in (1, 1, 2))
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_random_is_injective():
    for seed in range(20):
        used = Random.draw(12, 10, seed).assignment
        assert len(set(used)) == 10 and min(used) >= 0 and max(used) < 12
    assert sorted(Random.draw(5, 5, 0).assignment) == [0, 1, 2, 3, 4]


def test_starts_of_a_linear_probe():
    z, y = source_outputs(build("identity")), task().y_train
    assert torch.equal(build("linear_probe").b, Frequency.fit(z, y, 3).matrix(9))
    assert torch.equal(build("linear_probe", start="identity").b, Identity(3).matrix(9))
    free = build("linear_probe", start="uniform")
    assert 0.2 < float(free.b.abs().max()) <= 1 / 3 and free.head.bias.requires_grad


def test_a_source_with_fewer_outputs_than_classes():
    for name, options in (
        *(("bayesian", {}), ("bayesian_plus", {}), ("linear_probe", {"start": "uniform"})),
    ):
        model = mrviz.reprogram(source(2), task(), program="linear", mapping=name, **options)
        assert model.outputs == 3
    for name in ("random", "iterative", "logit_average", "probability_average", "linear_probe"):
        with pytest.raises(mrviz.InputError, match="2 outputs, too few for 3 target classes"):
            mrviz.reprogram(source(2), task(), program="linear", mapping=name)


@pytest.mark.parametrize("name", MAPPINGS)
def test_real_valued_targets(name):
    target = task(y=uniform(24, 2))
    if name in ("identity", "random"):
        assert mrviz.reprogram(source(), target, mapping=name).outputs == 2
        return
    instead = {"logit_average": "assignment='consecutive'", "linear_probe": "start='identity'"}
    advice = instead.get(name, "mapping='identity'")
    with pytest.raises(mrviz.InputError, match=f"{name}' needs class labels.*{advice} or a matrix"):
        mrviz.reprogram(source(), target, mapping=name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (name, dict(zip(choices, values, strict=True)))
        for name, spec in MAPPINGS.items()
        for choices in [[o.name for o in spec.declared.values() if o.kind is str]]
        for values in itertools.product(*(spec.declared[choice].choices for choice in choices))
    ],
    ids=str,
)
def test_mappings_say_whether_they_need_labels(name, options):
    target = task(y=uniform(24, 2))
    if MAPPINGS[name].needs_labels(options):
        with pytest.raises(mrviz.InputError, match="needs class labels"):
            mrviz.reprogram(source(), target, mapping=name, **options)
    else:
        assert mrviz.reprogram(source(), target, mapping=name, **options).outputs == 2


def test_only_mappings_that_need_them_compute_outputs():
    def refuse():
        raise AssertionError("computed")

    data = MappingData(9, 3, torch.arange(3), refuse)
    for name in ("identity", "random", "probability_average"):
        build_mapping(name, data)
    with pytest.raises(AssertionError, match="computed"):
        build_mapping("frequency", data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": "blm"}, "mapping must be one of frequency, identity, random"),
        ({"mapping": "bayesian", "ratio": 0.2}, "no option ratio.*mapping 'bayesian' are lam$"),
        ({"mapping": "frequency", "lam": 1}, "no option lam; its options are bias, seed$"),
        ({"mapping": Identity(3), "lam": 1}, "no option lam"),
        ({"mapping": "bayesian", "lam": -1}, "lam must be"),
        ({"mapping": "logit_average", "m": 4}, "choose m from 1 to 3"),
        ({"mapping": "logit_average", "assignment": "best"}, "assignment must be one of 'consec"),
        ({"mapping": "linear_probe", "start": "zero"}, "start must be one of 'frequency'"),
        ({"mapping": "bayesian", "program": Linear(CANVAS, IMAGE), "width": 1}, "'lam'|are lam"),
        ({"mapping": Identity(4)}, "gives 4 outputs, but the target has 3 classes"),
    ],
)
def test_wrong_names_and_options(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.reprogram(source(), task(), **{"program": "linear", **options})


def test_wrong_options_of_a_mapping_alone():
    data = MappingData(9, 3, None, lambda: None)
    with pytest.raises(mrviz.InputError, match="mapping 'random' has no option lam; its options"):
        build_mapping("random", data, lam=1)
    with pytest.raises(mrviz.InputError, match="'identity' has no option lam; it has none"):
        build_mapping("identity", data, lam=1, seed=2)
    with pytest.raises(mrviz.InputError, match="must be one of frequency"):
        build_mapping("blm", data)


def test_an_option_of_both_is_refused(monkeypatch):
    spec = MAPPINGS["bayesian"]
    monkeypatch.setattr(type(spec), "options", property(lambda self: ("lam", "bias")), raising=True)
    with pytest.raises(mrviz.InputError, match="both have an option bias"):
        build("bayesian", bias=True)
