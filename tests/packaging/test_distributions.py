"""What is handed to a package index: nothing is missing in it, its description leads nowhere that is not there, and it works alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Of a registry that cannot be reached, in pip's words.
UNREACHABLE = ("Failed to establish a new connection", "NameResolutionError", "No matching distribution found", "ProxyError")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, built from the sdist, and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(REPOSITORY)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def metadata_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return opened.read(name).decode("utf-8")


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[0]) as opened:
        inside = {name for name in opened.namelist() if ".dist-info/" not in name}
    here = set()
    for folder, place in (("usdata", "usdata"), ("uscl", "uscl"), ("manifests", "usdata/manifests")):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                here.add(f"{place}/{path.relative_to(REPOSITORY / folder).as_posix()}")
    assert inside == here
    assert {"usdata/py.typed", "uscl/py.typed", "usdata/manifests/us4.yaml", "uscl/recipes/uscl.yaml"} <= inside


def test_the_sdist_holds_what_its_tests_need(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[1]) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {"README.md", "LICENSE", "pyproject.toml", "Makefile", "constraints.txt", "constraints-oldest.txt", "CHANGELOG.md"}
    wanted |= {"CONTRIBUTING.md", "SECURITY.md", "tests/conftest.py", "docs/errors.py", "docs/demo.sh"}
    assert wanted <= inside


def test_the_metadata_names_the_licence_the_commands_and_nothing_that_is_not_there(distributions: tuple[Path, Path]) -> None:
    text = metadata_of(distributions[0])
    told = message_from_string(text)
    assert told["License-Expression"] == "MIT"
    assert told["Requires-Python"] == ">=3.11"
    assert told["Description-Content-Type"] == "text/markdown"
    description = text.partition("\n\n")[2]
    assert description.startswith("# usdata and uscl")
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert links
    assert all(link.startswith(("https://", "http://")) for link in links)
    with zipfile.ZipFile(distributions[0]) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith("entry_points.txt"))
        assert opened.read(name).decode().split() == ["[console_scripts]", "uscl", "=", "uscl.cli:app", "usdata", "=", "usdata.cli:app"]


def test_the_oldest_versions_are_those_of_pyproject() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"]]
    asked += [one for extra, many in project["optional-dependencies"].items() if extra != "dev" for one in many]
    bounds = {match[1].lower(): match[2] for one in asked if (match := re.match(r"([\w.-]+)>=([\d.]+)", one))}
    assert len(bounds) == len({re.split(r"[<>=; ]", one)[0].lower() for one in asked}), "every requirement has a lower bound"
    lines = (REPOSITORY / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = {name.lower(): number for name, _, number in (line.partition("==") for line in lines if not line.startswith("#"))}
    assert pinned == bounds


@pytest.mark.slow
def test_the_wheel_alone_runs_the_whole_way(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    """In an environment of its own, outside of the repository: from simulated clips to an evaluation and exported weights."""
    venv.create(tmp_path / "environment", with_pip=True)
    binaries = tmp_path / "environment" / "bin"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    pip = [str(binaries / "python"), "-m", "pip", "install", "--quiet", "-c", str(REPOSITORY / "constraints.txt"), str(distributions[0])]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False, env=clean)
    if installed.returncode and any(word in installed.stderr for word in UNREACHABLE):
        pytest.skip("the package registry cannot be reached")
    assert installed.returncode == 0, installed.stderr

    def run(*words: str) -> str:
        command = [str(binaries / words[0]), *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean, cwd=tmp_path)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    place = run("python", "-c", "import usdata, uscl; print(usdata.__file__, uscl.__file__)").split()
    assert all(Path(name).is_relative_to(tmp_path / "environment") for name in place)
    assert run("usdata", "--version") == run("uscl", "--version")
    small = ["--set", "image_size=32", "--set", "epochs=1", "--set", "batch_size=4", "--set", "probe.every_epochs=0"]
    run("usdata", "phantom", "raw", "--videos", "20")
    run("usdata", "build", "phantom", "--raw", "raw", "--out", "set", "--set", "image.max_side=96", "--workers", "1")
    run("usdata", "split", "set", "--folds", "2")
    run("usdata", "audit", "set")
    run("uscl", "pretrain", "set", "--out", "run", "--recipe", "demo", *small, "--set", "pairs.distinct_groups=false")
    told = json.loads(
        run("uscl", "evaluate", "linear", "set", "--weights", "random", "--out", "evaluation", "--image-size", "32", "--json")
    )
    assert told["weights"]
    run("uscl", "report", "evaluation", "--out", "report")
    run("uscl", "export", "run", "--format", "safetensors", "--out", "weights")
    for name in ("set/report.html", "run/report.html", "evaluation/report.html", "report/report.html", "weights/backbone.safetensors"):
        assert (tmp_path / name).stat().st_size > 1000
    assert "not installed" not in run("uscl", "doctor")
