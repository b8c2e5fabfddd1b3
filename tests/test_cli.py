"""The command line: the Workbench's numbers, every choice, errors with advice."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from mrviz import cli
from mrviz.experiment import HELP, Experiment
from mrviz.programs import MAPPINGS, PROGRAMS
from mrviz.workbench import Workbench

SMALL = Experiment(source="dnn", depth=2, width=16, input_size=12, target="digits", n=20)


def arguments(experiment):
    values = {f.name: getattr(experiment, f.name) for f in fields(experiment)}
    options = values.pop("options")
    given = [(k, v) for k, v in values.items() if v is not None]
    flags = [text for k, v in given for text in ("--" + k.replace("_", "-"), str(v))]
    return flags + [text for k, v in options.items() for text in ("--option", f"{k}={v}")]


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def output(capsys, *argv):
    assert cli.main(argv) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def result():
    return Workbench().run(SMALL, progress=False)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"program": "linear", "reduce": 3, "dtype": "float64"},
        {"capacity": 1, "seed": 2},
        {"program": "low_rank", "capacity": 5, "image_size": 6},
        {"program": "convolution", "capacity": 3},
        {"program": "scale"},
        {"mapping": "bayesian_plus"},
        {"mapping": "probability_average"},
        {"program": "patch", "capacity": 3},
        {"program": "linear", "options": {"bias": False}},
        {
            "mapping": "bayesian_plus",
            "options": {"lam": 0.5, "ratio": 0.3, "activation": "identity"},
        },
    ],
    ids=str,
)
def test_spectrum_as_json(capsys, choices):
    experiment = replace(SMALL, **choices)
    expected = Workbench().run(experiment, progress=False)
    text = output(capsys, "spectrum", "--json", *arguments(experiment))
    found = json.loads(text, parse_constant=refuse)
    assert found["experiment"] == expected.experiment.to_dict()
    values = found["spectrum"]["eigenvalues"]
    assert values == pytest.approx(expected.spectrum.eigenvalues.tolist(), abs=1e-6)
    assert found["spectrum"]["rank"] == expected.spectrum.rank


@pytest.mark.skipif(not importlib.util.find_spec("aeon"), reason="aeon is not installed")
def test_what_is_not_given_fits_what_is(capsys):
    small = ["--source", "conv-forecaster", "--input-size", "24", "--width", "4", "--n", "10"]
    found = json.loads(output(capsys, "spectrum", "--json", *small))
    chosen = found["experiment"]
    assert (chosen["target"], chosen["program"], chosen["mapping"]) == (
        *("airline", "linear", "identity"),
    )
    assert len(found["spectrum"]["eigenvalues"]) == 10 * 12
    probe = ["--mapping", "linear_probe", "--option", "start=uniform", "--reduce", "11"]
    found = json.loads(output(capsys, "conditions", "--json", *small, *probe))
    assert found["experiment"]["options"] == {"start": "uniform"} and found["n"] == 10


def test_spectrum_as_a_table(capsys, result):
    text = output(capsys, "spectrum", *arguments(SMALL))
    spec = result.spectrum
    assert f"{spec.rank} of 200" in text and f"{spec.largest:.4g}" in text
    assert "not resolved" in text and result.description in text
    assert f"{result.info.n_parameters}" in text
    rows = [line.split() for line in text.partition("residual energy\n")[2].splitlines()]
    assert int(rows[0][0]) == 1 and int(rows[-1][0]) == 200
    assert float(rows[0][1]) == pytest.approx(spec.largest, rel=1e-3)


def test_conditions_as_json_and_as_a_table(capsys, result):
    found = json.loads(output(capsys, "conditions", "--json", *arguments(SMALL)))
    text = output(capsys, "conditions", *arguments(SMALL))
    for condition in result.conditions:
        assert found[condition.id]["status"] == condition.status
        (line,) = [line for line in text.splitlines() if line.startswith(condition.id + " ")]
        assert condition.status in line and condition.name in line
    assert found["n"] == 20 and found["experiment"]["source"] == "dnn"


def test_doctor(capsys):
    status = cli.main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == (1 if found["problems"] else 0)
    assert cli.main(["doctor"]) == status
    assert found["versions"]["torch"] in capsys.readouterr().out


@pytest.mark.parametrize("command", ["spectrum", "conditions"])
def test_every_choice_has_an_option_with_help(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in fields(Experiment):
        name = {"options": "option"}.get(field.name, field.name)
        assert f"--{name.replace('_', '-')} " in text
        assert HELP[field.name].split(":")[0] in text
    for name, spec in PROGRAMS.items():
        assert name in text
        assert spec.capacity is None or f"{name}: {spec.capacity_label}" in text
    for name, spec in (PROGRAMS | MAPPINGS).items():
        for option in spec.declared.values():
            assert option.name in ("image_size",) or f"{name} {option.name}: " in text
    assert "series_padding replicas: copies of the series; whole number, default: 1" in text


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (["--source", "dnm"], "resnet"),
        (["--program", "frame"], "border"),
        (["--capacity", "wide"], "int"),
        (["--capacity", "9"], "1 to 2"),
        (["--program", "low_rank", "--capacity", "65"], "rank=65 is outside 1 to 64"),
        (["--program", "convolution", "--capacity", "8"], "size=8 is outside 1 to 7"),
        (["--program", "scale", "--capacity", "2"], "no capacity to choose"),
        (["--program", "frequency", "--capacity", "7"], "cutoff=7 is outside 1 to 6"),
        (["--program", "series_padding"], "takes series (channels, length)"),
        (["--n", "5"], "at least 10"),
        (["--n", "0"], "n must be a positive number"),
        (["--seed", "-1"], "at least 0"),
        (["--reduce", "most"], "trace"),
        (["--reduce", "12"], "0 to 9"),
        (["--image-size", "13"], "choose image_size"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--weights", "random"], "does not apply"),
        (["--option", "replicas=3"], "program 'border' has the options activation"),
        (["--option", "activation=tanh"], "activation must be one of 'sigmoid', 'identity'"),
        (["--option", "activation"], "takes NAME=VALUE"),
        (["--program", "linear", "--option", "bias=maybe"], "bias must be True or False"),
        (["--mapping", "bayesian", "--option", "lam=-1"], "lam must be a number of at least 0"),
        (["--mapping", "bayesian", "--option", "lam=1", "--option", "lam=2"], "more than once"),
        (["--program", "low_rank", "--option", "rank=3"], "its rank is the choice capacity"),
        (["--programme", "border", "--bogus"], "--bogus"),
    ],
    ids=" ".join,
)
def test_a_bad_value_is_status_2_with_advice(capsys, wrong, advice):
    try:
        status = cli.main(["spectrum", *arguments(SMALL), *wrong])
    except SystemExit as stopped:  # argparse
        status = stopped.code
    shown = capsys.readouterr()
    assert status == 2 and shown.out == "" and advice in shown.err
    assert "Traceback" not in shown.err


def test_no_command_is_an_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 2 and "COMMAND" in capsys.readouterr().err


def test_a_stop_by_the_user_is_not_a_crash(capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Workbench, "run", interrupt)
    assert cli.main(["spectrum", *arguments(SMALL)]) == 130
    assert "stopped" in capsys.readouterr().err


def test_lab_gets_its_own_arguments(capsys, monkeypatch):
    from mrviz import lab

    given = []
    monkeypatch.setattr(lab, "main", lambda arguments: given.append(list(arguments)))
    assert cli.main(["lab", "--no-browser", "--port=1"]) == 0
    assert given == [["--no-browser", "--port=1"]]


def test_lab_help_is_the_labs(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["lab", "--help"])
    assert stopped.value.code == 0 and "mrviz lab" in capsys.readouterr().out


def test_it_runs_as_a_program():
    command = [sys.executable, "-m", "mrviz.cli", "spectrum", *arguments(SMALL), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout)["spectrum"]["order"] == 200


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("denn", "'dnn', 'cnn'"),
        ("timm:resnet18", 'pip install "mrviz[vision]"'),
        ("torchvision:resnet18", 'pip install "mrviz[vision]"'),
    ],
)
def test_a_source_that_is_not_there_is_an_error_of_one_line(capsys, monkeypatch, source, words):
    for library in ("timm", "torchvision"):
        monkeypatch.setitem(sys.modules, library, None)
    assert cli.main(["spectrum", "--source", source]) == 2
    message = capsys.readouterr().err
    assert message.startswith("mrviz: ") and words in message and message.count("\n") == 1
