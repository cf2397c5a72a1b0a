"""No line of the packages loads what can run: read from their syntax trees, names followed through imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for package in ("usdata", "uscl") for path in (REPOSITORY / package).rglob("*.py"))
# What runs code or programs that a file brings, whatever its arguments.
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "dill.load",
    "dill.loads",
    "cloudpickle.load",
    "cloudpickle.loads",
    "joblib.load",
    "pandas.read_pickle",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
    "torch.jit.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "os.system",
    "os.popen",
    "os.execv",
    "os.execvp",
    "shutil.unpack_archive",
    "tempfile.mktemp",
}
# Methods of these names unpack archives without looking at where their members lead.
FORBIDDEN_METHODS = {"extractall"}


def names_of(tree: ast.AST) -> dict[str, str]:
    """Local names of what is imported, and what they stand for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                names[each.asname or each.name.partition(".")[0]] = each.name if each.asname else each.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                names[each.asname or each.name] = f"{node.module}.{each.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return "?"


def argument(call: ast.Call, name: str) -> object:
    value = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else value


def faults_of(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    names = names_of(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, names)
        if name in FORBIDDEN or name.rpartition(".")[2] in FORBIDDEN_METHODS:
            yield f"line {node.lineno}: {name}"
        if name == "torch.load" and argument(node, "weights_only") is not True:
            yield f"line {node.lineno}: torch.load without weights_only=True"
        if name in ("numpy.load", "numpy.lib.format.read_array") and argument(node, "allow_pickle") not in (None, False):
            yield f"line {node.lineno}: {name} with allow_pickle"
        if argument(node, "shell") not in (None, False):
            yield f"line {node.lineno}: {name} with a shell"
        if argument(node, "trust_remote_code") not in (None, False):
            yield f"line {node.lineno}: {name} with trust_remote_code"
        if argument(node, "verify") is False and name.startswith("httpx"):
            yield f"line {node.lineno}: {name} without looking at certificates"
        if name.endswith("jinja2.Environment") and argument(node, "autoescape") is not True:
            yield f"line {node.lineno}: a page without autoescape"
        if name.endswith(".Markup") and node.args and isinstance(node.args[0], ast.JoinedStr):
            yield f"line {node.lineno}: Markup of text with values in it"


@pytest.mark.parametrize(
    "line",
    [
        "import torch\ntorch.load(f)",
        "from torch import load as bring\nbring(f, weights_only=False)",
        "import pickle as p\np.loads(b)",
        "from yaml import load\nload(t)",
        "import yaml\nyaml.load(t, Loader=yaml.Loader)",
        "eval(text)",
        "import subprocess\nsubprocess.run(line, shell=True)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import pandas as pd\npd.read_pickle(p)",
        "import tarfile\ntarfile.open(p).extractall(q)",
        "import jinja2\njinja2.Environment(loader=x)",
        "from markupsafe import Markup\nMarkup(f'<b>{name}</b>')",
    ],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert list(faults_of(line))


def test_what_is_allowed_is_left_alone() -> None:
    allowed = "import torch, yaml, re\ntorch.load(f, weights_only=True)\nyaml.safe_load(t)\nre.compile('a')\nmodel.eval()\n"
    assert list(faults_of(allowed)) == []


def test_nothing_that_is_loaded_can_run() -> None:
    assert len(SOURCES) > 100
    found = [f"{path.relative_to(REPOSITORY)} {fault}" for path in SOURCES for fault in faults_of(path.read_text(encoding="utf-8"))]
    assert found == []


def test_the_one_reader_of_pickles_gives_them_no_function() -> None:
    """A subclass of Unpickler that does not override find_class would run what a file names."""
    subclasses = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = names_of(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(dotted(base, names) == "pickle.Unpickler" for base in node.bases):
                subclasses.append(path.name)
                assert any(isinstance(each, ast.FunctionDef) and each.name == "find_class" for each in node.body)
    assert subclasses == ["safe_pickle.py"]


def test_no_template_leaves_escaping() -> None:
    templates = [path for package in ("usdata", "uscl") for path in (REPOSITORY / package).rglob("*.jinja")]
    assert len(templates) > 10
    for path in templates:
        text = path.read_text(encoding="utf-8")
        assert "|safe" not in text.replace(" ", ""), path
        assert "autoescape false" not in text, path
