"""Both command lines as a user meets them: one clear line and exit code 2 for a mistake, results on stdout, talk on stderr."""

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.command_lines import run_here
from usdata import phantoms

REPOSITORY = Path(__file__).resolve().parent.parent


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=240)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    made = run("usdata", "phantom", folder / "one", "--videos", "1")
    assert made.returncode == 0, made.stderr
    phantoms.phantom(folder / "raw", videos=12, size=128, frames=16)  # smaller pictures than the command makes
    built = run("usdata", "build", "phantom", "--raw", folder / "raw", "--out", folder / "set", "--set", "image.max_side=96", "--json")
    assert built.returncode == 0, built.stderr
    counts = json.loads(built.stdout)["counts"]
    assert counts["found"] == counts["ok"] + counts["excluded"] + counts["failed"]
    assert counts["failed"] == 1
    return folder


def mistakes(folder: Path) -> dict[str, tuple[list[str | Path], str]]:
    raw, data = folder / "raw", folder / "set"
    return {
        "missing raw folder": (["usdata", "build", "phantom", "--raw", folder / "gone", "--out", folder / "x"], "no such folder"),
        "empty raw folder": (["usdata", "build", "phantom", "--raw", folder / "empty", "--out", folder / "x"], "is empty"),
        "misspelt recipe": (["usdata", "build", "phantm", "--raw", raw, "--out", folder / "x"], "did you mean 'phantom'?"),
        "misspelt key": (
            ["usdata", "build", "phantom", "--raw", raw, "--out", folder / "x", "--set", "fold.count=2"],
            "did you mean 'folds'?",
        ),
        "misspelt key in a file": (
            ["usdata", "build", folder / "bad.yaml", "--raw", raw, "--out", folder / "x"],
            "did you mean 'sampling'?",
        ),
        "wrong value": (["usdata", "build", "phantom", "--raw", raw, "--out", folder / "x", "--set", "folds.count=many"], "folds.count"),
        "occupied folder": (["usdata", "build", "phantom", "--raw", raw, "--out", folder / "thesis", "--overwrite"], "not a data set"),
        "another set there": (["usdata", "build", "phantom", "--raw", raw, "--out", data, "--set", "folds.count=2"], "--overwrite"),
        "unknown engine": (["usdata", "build", "phantom", "--raw", raw, "--out", folder / "x", "--engine", "rai"], "did you mean 'ray'?"),
        "unknown address": (["usdata", "build", "phantom", "--raw", "nosuch://a", "--out", folder / "x"], "cannot be opened"),
        "none of the parts": (["usdata", "build", "us4", "--raw", raw, "--out", folder / "x"], "holds none of the recipe's folders"),
        "unknown likeness": (["usdata", "phantom", folder / "x", "--like", "us5"], "did you mean 'us4'?"),
        "two numbers of clips": (["usdata", "phantom", folder / "x", "--like", "us4", "--videos", "9"], "leave one of them out"),
        "unknown export": (["usdata", "export", data, "--to", "folder", "--out", folder / "x"], "did you mean 'folders'?"),
        "export into a full folder": (["usdata", "export", data, "--to", "folders", "--out", folder / "thesis"], "not empty"),
        "phantom into a full folder": (["usdata", "phantom", folder / "thesis"], "not empty"),
        "split of no set": (["usdata", "split", folder / "thesis"], "is not a data set"),
        "too many folds": (["usdata", "split", data, "--folds", "500"], "too few for 500 folds"),
        "a published split that is none": (["usdata", "split", data, "--published", folder / "thesis"], "holds neither lists nor folders"),
        "comparison with no set": (["usdata", "compare", data, folder / "thesis"], "is not a data set"),
        "migration of no set": (["usdata", "migrate", folder / "thesis"], "is not a data set"),
        "audit of no set": (["usdata", "audit", folder / "thesis"], "is not a data set"),
        "a gate that would never shut": (["usdata", "audit", data, "--fail-on", "eror"], "did you mean 'error'?"),
        "audit of nothing": (["usdata", "audit", folder / "gone"], "no such data set"),
        "pretraining without a set": (["uscl", "pretrain", folder / "thesis", "--out", folder / "x"], "is not a data set"),
        "misspelt training key": (["uscl", "pretrain", data, "--out", folder / "x", "--set", "augmnt.blur=1"], "augment"),
        "misspelt training recipe": (["uscl", "pretrain", data, "--out", folder / "x", "--recipe", "uslc"], "uscl"),
        "a run is there": (["uscl", "pretrain", data, "--out", folder / "thesis"], "overwrite"),
        "evaluation of nothing": (
            ["uscl", "evaluate", "linear", folder / "gone", "--weights", "random", "--out", folder / "x"],
            "no such data set",
        ),
        "unknown weights": (["uscl", "evaluate", "linear", data, "--weights", folder / "gone", "--out", folder / "x"], "no such"),
        "unknown column": (
            ["uscl", "evaluate", "linear", data, "--weights", "random", "--out", folder / "x", "--where", "organn=lung"],
            "organ",
        ),
    }


@pytest.mark.parametrize("mistake", mistakes(Path("/nowhere")))
def test_a_mistake_is_one_line_and_exit_code_2(phantom: Path, mistake: str) -> None:
    (phantom / "empty").mkdir(exist_ok=True)
    (phantom / "thesis").mkdir(exist_ok=True)
    (phantom / "thesis" / "chapter1.tex").write_text("precious")
    (phantom / "bad.yaml").write_text("name: bad\nsources: [{name: bad, layout: files, samplin: {rule: all}}]\n")
    arguments, said = mistakes(phantom)[mistake]
    program, *rest = map(str, arguments)
    # In this process: the others below start programs of their own, and fifty would take minutes.
    result = CliRunner().invoke(import_module(f"{program}.cli").app, rest)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert said in lines[-1]
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not (phantom / "x").exists()
    assert (phantom / "thesis" / "chapter1.tex").read_text() == "precious"


def test_audit_names_the_truncated_file_and_fail_on_leaves_with_3(phantom: Path) -> None:
    truncated = next(line.split(",")[0] for line in (phantom / "raw" / "truth.csv").read_text().splitlines() if ",truncated," in line)
    text = run("usdata", "audit", phantom / "set")
    assert text.returncode == 0, text.stderr
    assert Path(truncated).name in text.stdout
    found = run("usdata", "audit", phantom / "set", "--json", "--fail-on", "warning")
    assert found.returncode == 3
    assert truncated in json.dumps(json.loads(found.stdout))
    assert (phantom / "set" / "report.html").is_file()


def test_a_set_can_be_moved(phantom: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom / "set", tmp_path / "elsewhere")
    assert run_here("usdata", "audit", tmp_path / "elsewhere").returncode == 0


def test_recipes_are_listed_and_printed() -> None:
    assert "\ndemo " in run("uscl", "recipes").stdout
    assert "policy: uscl" in run("uscl", "recipes", "uscl").stdout
    assert run("uscl", "recipes", "usl").returncode == 2


def test_the_plan_is_printed_and_nothing_is_made(phantom: Path) -> None:
    planned = run("usdata", "build", "phantom", "--raw", phantom / "raw", "--out", phantom / "x", "--dry-run")
    assert planned.returncode == 0
    assert "would read 17 clips" in planned.stdout
    assert re.search(r"\n  patients: \d+, at most \d+ clips of one\n  labels: a_lines \d+, ", planned.stdout), planned.stdout
    assert re.search(r"\n  left out: 2 \(.*\): .*\.(csv|txt)", planned.stdout), planned.stdout
    assert not (phantom / "x").exists()
