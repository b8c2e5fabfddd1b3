"""environment.yml and pyproject.toml ask for the same packages in the same versions."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("lab", "series", "test")
CONDA_TO_PYPI = {"pytorch": "torch", "python-kaleido": "kaleido"}
CONDA_ONLY = {"python", "pip"}

Requirements = dict[str, SpecifierSet]


def of_pyproject(text: str) -> Requirements:
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    requirements: Requirements = {}

    def add(lines: Iterable[str]) -> None:
        for line in lines:
            requirement = Requirement(line)
            if requirement.name == project["name"]:
                for extra in requirement.extras:
                    add(extras[extra])
            else:
                requirements[canonicalize_name(requirement.name)] = requirement.specifier

    add(project["dependencies"])
    for extra in EXTRAS:
        add(extras[extra])
    return requirements


def of_environment(text: str) -> Requirements:
    requirements: Requirements = {}
    for entry in yaml.safe_load(text)["dependencies"]:
        conda = isinstance(entry, str)
        for line in [entry] if conda else entry["pip"]:
            if line == "-e .":
                continue
            # conda writes python=3.12 for what pip writes python==3.12.*
            exact = conda and not any(sign in line for sign in "<>!~")
            requirement = Requirement(line.replace("=", "==", 1) if exact else line)
            name = CONDA_TO_PYPI.get(requirement.name, requirement.name) if conda else line
            if name not in CONDA_ONLY:
                name = name if conda else requirement.name
                requirements[canonicalize_name(name)] = requirement.specifier
    return requirements


@pytest.fixture
def pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture
def environment() -> str:
    return (ROOT / "environment.yml").read_text(encoding="utf-8")


def test_the_two_files_agree(pyproject: str, environment: str) -> None:
    assert of_environment(environment) == of_pyproject(pyproject)


@pytest.mark.parametrize("line", ["  - tqdm>=4.66\n", "      - fracast>=0.1\n"])
def test_a_package_missing_from_environment_is_seen(
    pyproject: str, environment: str, line: str
) -> None:
    assert line in environment
    assert of_environment(environment.replace(line, "")) != of_pyproject(pyproject)


@pytest.mark.parametrize(
    ("line", "changed"),
    [('"tqdm>=4.66",', ""), ('"plotly>=7",', '"plotly>=8",'), ('"scipy', '"extra", "scipy')],
)
def test_a_change_of_pyproject_is_seen(
    pyproject: str, environment: str, line: str, changed: str
) -> None:
    assert line in pyproject
    assert of_environment(environment) != of_pyproject(pyproject.replace(line, changed))


def test_environment_installs_the_project_itself(environment: str) -> None:
    settings = yaml.safe_load(environment)
    assert settings["name"] == "mrviz"
    assert settings["channels"] == ["conda-forge"]
    assert any(d.startswith("python=3.12") for d in settings["dependencies"] if type(d) is str)
    assert "-e ." in settings["dependencies"][-1]["pip"]


# --- binder ---------------------------------------------------------------------------------

BINDER = ROOT / "binder"


def test_binder_installs_the_extras_that_the_notebooks_need(pyproject: str) -> None:
    script = BINDER / "postBuild"
    assert script.stat().st_mode & 0o100
    found = re.search(r'pip install .*-e "\.\[(.*)\]"', script.read_text(encoding="utf-8"))
    assert found is not None
    project = tomllib.loads(pyproject)["project"]["optional-dependencies"]
    extras = found[1].split(",")
    assert set(extras) <= set(project)
    named = {Requirement(line).name for extra in extras for line in project[extra]}
    assert {"jupyterlab", "aeon", "dask"} <= named


def test_binder_takes_python_and_pytorch_of_environment_yml(environment: str) -> None:
    of_binder = yaml.safe_load((BINDER / "environment.yml").read_text(encoding="utf-8"))
    everything = yaml.safe_load(environment)
    assert of_binder["channels"] == everything["channels"]
    assert set(of_binder["dependencies"]) <= {
        d for d in everything["dependencies"] if type(d) is str
    }
    assert any(line.startswith("pytorch") for line in of_binder["dependencies"])


def test_binder_has_no_other_file_that_would_win() -> None:
    """repo2docker prefers a Dockerfile to environment.yml."""
    assert {path.name for path in BINDER.iterdir()} == {"environment.yml", "postBuild"}
