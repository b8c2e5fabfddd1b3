"""The worked example of CONTRIBUTING.md is true: one file and one test, and it is everywhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mrviz
from mrviz import cli, mappings
from mrviz.figures import program_figure
from mrviz.programs import PROGRAMS
from tests.ntk.common import brute_jacobian, close, contracted, conv_net, module_function, uniform

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?^```python\n(?P<code>.*?)^```$", re.M | re.S
)
FILES = {m["file"]: m["code"] for m in BLOCK.finditer(TEXT) if m["file"]}
SCRIPTS = [m["code"] for m in BLOCK.finditer(TEXT) if not m["file"]]
PROGRAM, TEST = "mrviz/programs/rows.py", "tests/programs/test_rows.py"


@pytest.fixture(scope="module")
def rows():
    """The class of the example, defined as in a cell of a notebook."""
    names = {"__name__": "rows"}
    exec(compile(FILES[PROGRAM], PROGRAM, "exec", dont_inherit=True), names)
    yield names["RowShifts"]
    del PROGRAMS["rows"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the package and of the tests that a program needs, with the two files added."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mrviz", folder / "mrviz", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("tests/__init__.py", "tests/ntk/__init__.py", "tests/ntk/common.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "tests/ntk/test_every_program.py", folder / "tests/ntk")
    (folder / "tests/programs").mkdir()
    shutil.copy(ROOT / "tests/programs/__init__.py", folder / "tests/programs")
    for name, code in FILES.items():
        assert not (ROOT / name).exists()
        (folder / name).write_text(code, encoding="utf-8")
    return folder


def python(folder, *arguments):
    """Runs Python in the copy; returns what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_page_has_one_file_one_test_and_a_script():
    assert set(FILES) == {PROGRAM, TEST} and len(SCRIPTS) == 1


def test_the_class_declares_all_that_is_known_of_it(rows):
    spec = PROGRAMS["rows"]
    assert spec.make is rows and spec.label == "brightness of rows" and spec.capacity == "rows"
    assert spec.options == ("rows",) and spec.takes == ("image",) and not spec.framed
    assert spec.capacity_label == "trainable rows (from the top)"


def test_its_kernel_is_that_of_whole_jacobians(rows):
    source, target = (3, 6, 5), (1, 4, 4)
    net = conv_net(source, 3, seed=2)
    program = mrviz.programs.build_program("rows", source, target, rows=4).double()
    model = mrviz.ReprogrammedModel(mrviz.SourceModel(net, source), program, mappings.Identity())
    x = uniform(3, *target)
    j = brute_jacobian(*module_function(net, program), x)
    gram = mrviz.ntk_gram(model, x)
    assert close(gram.matrix, contracted(j, j)) and "closed form" in gram.info.why
    assert model.n_parameters == 12


def test_the_command_line_knows_it(rows, capsys):
    with pytest.raises(SystemExit):
        cli.main(["spectrum", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ",rows}" in shown and "rows: trainable rows (from the top)" in shown
    (command,) = re.findall(r"^\$ mrviz (spectrum .*)$", TEXT, re.M)
    assert cli.main([*command.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["experiment"]["program"], found["experiment"]["capacity"]) == ("rows", 3)


def test_the_explorer_offers_it_with_its_capacity(rows):
    pytest.importorskip("ipywidgets")
    from mrviz.experiment import Experiment
    from mrviz.widgets.controls import Controls
    from mrviz.workbench import Workbench

    small = Experiment(source="dnn", depth=2, width=16, input_size=12, target="digits", n=20)
    controls = Controls(small, lambda name: None)
    try:
        assert ("brightness of rows", "rows") in controls.widgets["program"].options
        controls.widgets["program"].value = "rows"
        result = Workbench().run(controls.experiment, progress=False)
        controls.show_capacity(
            result.capacity_label, result.capacity_range, result.experiment.capacity
        )
        slider = controls.widgets["capacity"]
        assert (slider.min, slider.max, slider.value) == (1, 12, 12)
        assert "trainable rows" in slider.description
    finally:
        controls.close()


def test_its_picture_is_drawn(rows):
    names = {}
    exec(SCRIPTS[0], names)
    part = names["figure"].data[2]
    values = torch.as_tensor(part.z)
    assert values.shape == (12, 12) and values[:3].isfinite().all() and values[3:].isnan().all()
    assert program_figure(names["model"], names["target"].x_train[0]).data


def test_a_file_in_the_folder_is_enough(checkout):
    code = (
        "import mrviz, mrviz.cli as c; from mrviz.widgets.controls import Controls; "
        "from mrviz.experiment import Experiment; "
        "names = [v for _, v in Controls(Experiment(), print).widgets['program'].options]; "
        "print(mrviz.__file__, 'rows' in mrviz.programs.PROGRAMS, 'rows' in names); "
        "c.main(['spectrum', '--program', 'none'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        timeout=120,
    )
    assert done.stdout.split() == [str(checkout / "mrviz" / "__init__.py"), "True", "True"]
    assert "rows" in done.stderr.split("choose from")[1]


def test_its_own_test_and_those_of_every_program_pass(checkout):
    command = ["-m", "pytest", "-q", "--import-mode=importlib", "-k", "row", TEST]
    out = python(checkout, *command, "tests/ntk/test_every_program.py")
    assert re.search(r"^1[0-9] passed", out, re.M), out
