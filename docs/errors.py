"""Write docs/errors.md from every `raise` of a user's error in the packages: `python docs/errors.py`. A test holds them equal.

In come syntax trees; out comes a table a module: what an error is about, its reason, and its advice, with what is only known at run time as
a name in angle quotes. Names of texts are followed to where they are given a value, in the same function or at the top of the module.
"""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from usdata import errors

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "errors.md"
KINDS = ("UserError", "RecipeError", "DataSetError", "ReadError")
NEAREST = "did you mean ‹the nearest›? (or all that are known)"

HEAD = """\
# Every error, and what to do

A mistake in what you gave is one line on stderr, `error: SUBJECT: REASON; ADVICE`, and exit code 2; nothing half-written stays. In a
notebook it is an exception with `subject`, `reason` and `advice`. What goes wrong otherwise is a fault of ours, and shows Python's
traceback: please report it.

| exit code | what it means |
|---|---|
{codes}

A full disk is code 2 as well: `FILE: no space is left for it; free some or name another place; nothing half-written stays`. What the
system refuses otherwise (no leave, a broken disk) is code 1, and one line that names the file.

Below stand all {count} errors, by the module that raises them; ‹names in these quotes› stand for what is known only then. Errors of the
readers cost a build one row (`status` failed, with this text as `reason` in `videos.parquet`), and end commands that were given that one
file. A mistake in the words of a command line itself (an unknown option, a missing argument) is code 2 and told by Typer.

Made by `python docs/errors.py` from the code.
"""

CODES = {
    errors.EXIT_DONE: "done",
    errors.EXIT_OUR_FAULT: "a fault of ours, with a traceback, or a refusal of the system, in one line",
    errors.EXIT_USER_ERROR: "what was given is wrong, in one line",
    errors.EXIT_FINDINGS: "done, and there are findings that you asked about (`--fail-on`, `--fail`, `usdata validate`, `usdata rebuild`)",
    errors.EXIT_STOPPED: "stopped by a signal with everything saved: run the same command again",
}


@dataclass(frozen=True)
class Told:
    """One `raise`, or one call that makes such an error.

    Attributes:
        module: Path below the repository.
        line: In it.
        kind: The class.
        parts: Subject, reason and advice; fewer where it has fewer.
    """

    module: str
    line: int
    kind: str
    parts: tuple[str, ...]


def all_errors() -> list[Told]:
    """Every error of the packages, by module and line."""
    found = []
    for package in ("usdata", "uscl"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if path != REPOSITORY / "usdata" / "errors.py":
                found += _of_module(path)
    return found


@functools.cache
def _of_module(path: Path) -> tuple[Told, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = _imported(tree) | _values(tree.body)
    calls = []
    for function in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
        known = top if function is tree else top | _values(list(ast.walk(function)))
        calls += [(node, known) for node in ast.walk(function) if isinstance(node, ast.Call) and _name(node.func) in KINDS]
    # The innermost function comes last, and knows most names.
    found = []
    for node, known in sorted({id(node): (node, known) for node, known in calls}.values(), key=lambda each: each[0].lineno):
        parts = tuple(_text(argument, known) for argument in node.args if not isinstance(argument, ast.Starred))
        if len(parts) < len(node.args):  # explain_validation gives both
            parts += ("‹key›: ‹what is wrong with it›", "‹what is allowed›")
        found.append(Told(path.relative_to(REPOSITORY).as_posix(), node.lineno, _name(node.func), parts))
    return tuple(found)


@functools.cache
def _constants(module: str) -> dict[str, list[ast.expr]]:
    path = REPOSITORY.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return _values(ast.parse(path.read_text(encoding="utf-8")).body) if path.is_file() else {}


def _imported(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Texts that are imported from another module of the packages."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ("usdata", "uscl"):
            for each in node.names:
                if each.name in _constants(node.module):
                    found[each.asname or each.name] = _constants(node.module)[each.name]
    return found


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _values(nodes: list[ast.AST] | list[ast.stmt]) -> dict[str, list[ast.expr]]:
    """What is assigned to each name."""
    values: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Name):
                values.setdefault(target.id, []).append(value)
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
                for each, given in zip(target.elts, value.elts, strict=True):
                    if isinstance(each, ast.Name):
                        values.setdefault(each.id, []).append(given)
    return values


def _text(node: ast.expr, known: dict[str, list[ast.expr]], depth: int = 0) -> str:
    """An expression as a reader would meet it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part.value if isinstance(part, ast.FormattedValue) else part, known, depth) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, known, depth) + _text(node.right, known, depth)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not isinstance(node.right, ast.Constant):
        return f"{_text(node.left, known, depth)}/{_text(node.right, known, depth)}"  # a path
    if isinstance(node, ast.IfExp):
        first, second = (_text(each, known, depth) for each in (node.body, node.orelse))
        return " / ".join(each for each in (first, second) if each)
    if isinstance(node, ast.Call) and _name(node.func) == "nearest":
        return NEAREST
    if isinstance(node, ast.Name) and depth < 3 and any(_is_text(value) for value in known.get(node.id, ())):
        texts = [_text(value, known, depth + 1) for value in known[node.id] if _is_text(value)]
        return " / ".join(dict.fromkeys(text for text in texts if text))
    return f"‹{_word(node)}›"


def _is_text(value: ast.expr) -> bool:
    if isinstance(value, ast.Constant):
        return isinstance(value.value, str)
    if isinstance(value, ast.IfExp):
        return _is_text(value.body) or _is_text(value.orelse)
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, ast.Add) and (_is_text(value.left) or _is_text(value.right))
    return isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Call) and _name(value.func) == "nearest")


def _word(node: ast.expr) -> str:
    """A short name for a value: `dataset.folder` is a folder, `', '.join(missing)` is missing."""
    if isinstance(node, ast.Call):
        inside = [argument for argument in node.args if not isinstance(argument, ast.Constant)]
        return _word(inside[0] if inside else node.func.value if isinstance(node.func, ast.Attribute) else node.func)
    if isinstance(node, ast.Subscript):
        return _word(node.slice) if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str) else _word(node.value)
    if isinstance(node, ast.BinOp):
        return _word(node.left)
    if isinstance(node, ast.BoolOp):
        return _word(node.values[0])
    if isinstance(node, ast.GeneratorExp | ast.ListComp):
        return _word(node.generators[0].iter)
    if isinstance(node, ast.Constant):
        return str(node.value)
    found = {"strerror": "what the system says", "error": "what went wrong"}
    name = _name(node).strip("_")
    return found.get(name, name.replace("_", " ").lower() or "...")


def _cell(text: str) -> str:
    escaped = re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split()))
    return escaped.replace("<", "&lt;")


def _about(module: str) -> str:
    """The first sentence of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse((REPOSITORY / module).read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("<", "&lt;")


def page() -> str:
    """The page."""
    found = all_errors()
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in CODES.items())
    parts = [HEAD.format(codes=codes, count=len(found))]
    for module in dict.fromkeys(told.module for told in found):
        rows = [" | ".join(_cell(part) for part in (*told.parts, "", "")[:3]) for told in found if told.module == module]
        # The same words may be said in two places.
        table = "\n".join(f"| {row} |" for row in dict.fromkeys(rows))
        parts.append(f"\n## {module}\n\n{_about(module)}\n\n| about | what is wrong | what to do |\n|---|---|---|\n{table}\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
