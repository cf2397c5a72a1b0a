"""Methods of a user's own: the guide's example trains and resumes, and what is wrong with a file is one line that says where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.uscl.tiny_set import TINY_NETWORK, metrics_of, write_set
from uscl.config import Config, load_config
from uscl.methods import Method, find_method, make_method, own_settings
from uscl.methods.own import own_file
from uscl.train import pretrain
from usdata.errors import RecipeError
from usdata.files import sha256_file

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "own-method.md"
FEW = [TINY_NETWORK, "image_size=16", "batch_size=4", "device=cpu", "checkpoint.log_every_steps=1", "probe.every_epochs=0"]
HEAD = "from uscl.methods import Method, own_settings\n"
OURS = HEAD + "class Ours(Method):\n    def loss(self, projections, facts):\n        return projections.square().mean(), {}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_guides_example_trains_resumes_and_is_recorded(folder: Path) -> None:
    found = re.search(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    code = found[1]
    assert len(code.splitlines()) <= 30
    (folder / "simsiam.py").write_text(code)
    data = write_set(folder / "set")
    settings = [*FEW, "epochs=2", "method=simsiam:SimSiam", "own.hidden=8"]
    pretrain(data, out=folder / "run", overrides=settings)
    lines = metrics_of(folder / "run")
    assert len(lines) == 4
    for line in lines:
        assert -1 <= line["negative_cosine"] <= 1
        assert line["loss"] == pytest.approx(line["negative_cosine"] + 0.2 * line["cross_entropy"], abs=1e-5)
    recorded = {"file": "simsiam.py", "sha256": sha256_file(folder / "simsiam.py")}
    assert json.loads((folder / "run" / "environment.json").read_text())["own_method"] == recorded

    pretrain(data, out=folder / "run", overrides=settings, resume=True)
    assert "has changed" not in (folder / "run" / "log.txt").read_text()
    (folder / "simsiam.py").write_text(code + "# edited\n")
    pretrain(data, out=folder / "run", overrides=settings, resume=True)
    log = (folder / "run" / "log.txt").read_text()
    assert f"warning: simsiam.py has changed since this run was trained with it (sha256 was {recorded['sha256'][:16]}" in log


def test_where_a_class_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine.py").write_text(OURS)
    kind = find_method("mine:Ours")
    assert issubclass(kind, Method)
    assert find_method("mine:Ours") is kind  # the same while the file is
    # An edited file is read anew, as a notebook needs it, and a file of the same name in another folder is another one.
    (folder / "mine.py").write_text(OURS.replace("mean()", "sum()"))
    assert find_method("mine:Ours") is not kind
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "mine.py").write_text(OURS + f"\n    WHERE = '{name}'\n")
        monkeypatch.chdir(folder / name)
        found: Any = find_method("mine:Ours")
        assert name == found.WHERE
    monkeypatch.chdir(folder)
    (folder / "package").mkdir()
    (folder / "package" / "inner.py").write_text(OURS)
    assert own_file(find_method("package.inner:Ours")) == {
        "file": "package/inner.py",
        "sha256": sha256_file(folder / "package/inner.py"),
    }
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "far.py").write_text(OURS)
    monkeypatch.syspath_prepend(folder / "elsewhere")
    monkeypatch.chdir(folder / "package")
    file = own_file(find_method("far:Ours"))
    assert file is not None
    assert file["file"] == "far.py"  # and not the way to it
    assert own_file(find_method("uscl")) is None


@pytest.mark.parametrize(
    ("code", "name", "words"),
    [
        (None, "bda:Ours", r"there is no module 'bda'; did you mean 'bad'\?"),
        (None, "nowhere:Ours", r"there is no module 'nowhere'; is nowhere\.py in this folder\?"),
        (OURS, "bad:Oursss", r"bad has no 'Oursss'; did you mean 'Ours'\?"),
        (OURS, "bad:own_settings", "is no subclass of uscl.methods.Method"),
        ("class Ours:\n    pass\n", "bad:Ours", "is no subclass of uscl.methods.Method"),
        (HEAD + "class Ours(Method):\n    pass\n", "bad:Ours", "gives no loss"),
        ("import numpy\nx = 1 /\n", "bad:Ours", r"importing bad fails in bad\.py, line 2: SyntaxError"),
        ("import numpy\nimport no_such_thing\n", "bad:Ours", r"importing bad fails in bad\.py, line 2: ModuleNotFoundError.*no_such_thing"),
        ("\n\nfrom numpy import no_such_thing\n", "bad:Ours", r"importing bad fails in bad\.py, line 3: ImportError"),
        ("x = [\n    0,\n]\nx[7]\n", "bad:Ours", r"importing bad fails in bad\.py, line 4: IndexError"),
        (OURS, "json:Ours", r"another module named 'json' is loaded already; rename json\.py"),
        (OURS.replace("def loss", "def __init__(self):\n        pass\n    def loss"), "bad:Ours", "making Ours fails: TypeError"),
        (
            OURS.replace("def loss", "def __init__(self, config, classes):\n        super().__init__(config, -1.5)\n    def loss"),
            "bad:Ours",
            r"making Ours fails in bad\.py, line 4: TypeError",
        ),
        (
            OURS.replace("def loss", "def __init__(self, config, classes):\n        own_settings(config, margin=1.0)\n    def loss"),
            "bad:Ours",
            r"own\.margni: is no setting of method 'bad:Ours'; did you mean 'margin'\?",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(folder: Path, code: str | None, name: str, words: str) -> None:
    (folder / "bad.py").write_text(code or "")
    (folder / "json.py").write_text(OURS)
    with pytest.raises(RecipeError, match=words) as caught:
        make_method(load_config("uscl", [f"method={name}", "own.margni=1"]), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("loss = projections.square().mean()\n        return loss / facts.nothing, {}", r"fails in bad\.py, line 5: AttributeError"),
        ("return helper(projections), {}", r"fails in bad\.py, line 6: ValueError: not today; mend the file, and go on with --resume"),
        ("return projections.mean()", r"fails: TypeError: .*; loss\(\) returns one number with a gradient, and a dictionary"),
        (
            "return projections, {}",
            r"fails: RuntimeError: grad can be implicitly created only for scalar outputs; loss\(\) returns one number",
        ),
        ("return projections.mean(), {'part': 0.5}", r"fails: AttributeError: 'float' object has no attribute 'detach'; loss\(\) returns"),
    ],
)
def test_a_mistake_in_the_training_is_one_line_and_its_traceback_is_kept(folder: Path, body: str, words: str) -> None:
    helper = "def helper(tensor):\n    raise ValueError('not today')\n" if "helper" in body else ""
    (folder / "bad.py").write_text(f"{HEAD}class Ours(Method):\n    def loss(self, projections, facts):\n        {body}\n{helper}")
    data = write_set(folder / "set")
    with pytest.raises(RecipeError, match=r"method: is 'bad:Ours', and a step with it " + words) as caught:
        pretrain(data, out=folder / "run", overrides=[*FEW, "epochs=1", "method=bad:Ours"])
    assert "\n" not in str(caught.value)
    assert str(folder / "run" / "log.txt") in str(caught.value)
    assert "Traceback (most recent call last)" in (folder / "run" / "log.txt").read_text()
    assert json.loads((folder / "run" / "run.json").read_text())["status"] == "failed"
    (folder / "bad.py").write_text(OURS)
    pretrain(data, out=folder / "run", overrides=[*FEW, "epochs=1", "method=bad:Ours"], resume=True)
    assert json.loads((folder / "run" / "run.json").read_text())["status"] == "finished"


def test_a_fault_of_a_shipped_method_stays_a_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uscl.methods.uscl import USCL

    monkeypatch.setattr(USCL, "loss", lambda self, projections, facts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pretrain(write_set(folder / "set"), out=folder / "run", overrides=[*FEW, "epochs=1"])


def test_own_settings() -> None:
    config = load_config("uscl", ["method=a:B", "own.margin=1e-3", "own.layers=2", "own.on=true", "own.names=[a, b]"])
    defaults: dict[str, Any] = {"margin": 0.2, "layers": 1, "on": False, "names": [], "free": None}
    assert own_settings(config, **defaults) == {"margin": 0.001, "layers": 2, "on": True, "names": ["a", "b"], "free": None}
    assert own_settings(Config(), margin=0.2) == {"margin": 0.2}
    for override in ("own.margin=wide", "own.layers=1.5", "own.on=1", "own.layers=true", "own.margin=true"):
        with pytest.raises(RecipeError, match=r"^own\.\w+: is .*its default is"):
            own_settings(load_config("uscl", [override]), margin=0.2, layers=1, on=False)
    with pytest.raises(RecipeError, match=r"own\.margin: is not used by method 'uscl'"):
        make_method(load_config("uscl", ["own.margin=1"]), 0)


def test_a_dry_run_finds_it(folder: Path) -> None:
    data = write_set(folder / "set", frames_per_video=(2, 2))
    with pytest.raises(RecipeError, match="there is no module 'nowhere'"):
        pretrain(data, out=folder / "run", overrides=[*FEW, "method=nowhere:Ours"], dry_run=True)
