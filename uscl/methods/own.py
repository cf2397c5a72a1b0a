"""A method of a user's own: `module:Class` in the recipe, found from the working folder or where Python looks.

In comes that name; out comes the class, read anew where its file has changed, and what a run records of the file. What is wrong with the
file is one line that names it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from uscl.config import Config
from usdata.errors import RecipeError, UserError, nearest
from usdata.files import sha256_file

# The modules that were imported here, each with the sha256 of its file at that time.
_imported: dict[str, str] = {}
# Compilers of torch answer with pages.
_MOST_SAID = 300
# Where no line of the user's file is to blame, what it returned is.
_WHAT_IS_RETURNED = "loss() returns one number with a gradient, and a dictionary of its parts: tensors of one number each"


def find_own(name: str) -> Any:
    """What `module:Class` names.

    Raises:
        RecipeError: There is no such module or class, or importing it fails.
    """
    module_name, _, class_name = name.partition(":")
    module = _import(name, module_name)
    found = getattr(module, class_name, None)
    if found is None:
        classes = [each for each, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__]
        advice = nearest(class_name, classes) if classes else "it has no class of its own"
        raise RecipeError("method", f"is '{name}', and {module_name} has no '{class_name}'", advice)
    return found


def own_file(kind: type) -> dict[str, str] | None:
    """What a run records of the file that a class of one's own stands in; None for one of this package.

    Returns:
        `file`, below the working folder (of a module from elsewhere: its name as a path), and `sha256` of what was imported.
    """
    if kind.__module__.partition(".")[0] == __package__.partition(".")[0]:
        return None
    path = _file(sys.modules[kind.__module__])
    if path is None:
        return None
    here = Path.cwd()
    inside = path.relative_to(here).as_posix() if path.is_relative_to(here) else kind.__module__.replace(".", "/") + path.suffix
    return {"file": inside, "sha256": _imported.get(kind.__module__) or sha256_file(path)}


def changed_sentence(before: dict[str, str] | None, now: dict[str, str] | None) -> str | None:
    """What it means that a run goes on with another file than it had; None where it is the same."""
    if before is None or now is None or before["sha256"] == now["sha256"]:
        return None
    digests = f"sha256 was {before['sha256'][:16]}, is {now['sha256'][:16]}"
    return f"{now['file']} has changed since this run was trained with it ({digests}): from here on it is another method"


def own_settings(config: Config, **defaults: Any) -> dict[str, Any]:
    """The settings under `own`, with these defaults where they are not set.

    Args:
        config: Of the run.
        **defaults: Every setting that there is; a number's default says whether it must be whole.

    Raises:
        RecipeError: One is set that is not among them, or of another type.

    Example:
        >>> own_settings(config, margin=0.2)
        {'margin': 0.2}
    """
    settings = dict(defaults)
    for key, value in config.own.items():
        if key not in defaults:
            raise RecipeError(f"own.{key}", f"is no setting of method '{config.method}'", nearest(key, defaults))
        default = defaults[key]
        if isinstance(default, float) and isinstance(value, int | str) and not isinstance(value, bool):
            value = _number(value)  # YAML reads 1e-3 as text
        if default is not None and type(value) is not type(default):
            raise RecipeError(f"own.{key}", f"is {value!r}", f"its default is {default!r}: give something like it")
        settings[key] = value
    return settings


@contextmanager
def one_line(name: str, doing: str) -> Iterator[None]:
    """Turn what a user's own code raises into one line with the place in it; a full memory and errors with a line of their own stay.

    Args:
        name: Of the method; what one of this package raises is a fault of ours, and stays as it is.
        doing: What is done with that code.

    Raises:
        RecipeError: It raised something.
    """
    if ":" not in name:
        yield
        return
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        where = _place(error)
        said = " ".join(str(error).split())[:_MOST_SAID] or "no reason given"
        reason = f"is '{name}', and {doing} fails{where}: {type(error).__name__}: {said}"
        raise RecipeError("method", reason, "mend the file" if where else _WHAT_IS_RETURNED) from error


def _import(name: str, module_name: str) -> ModuleType:
    top = module_name.partition(".")[0]
    folder = os.getcwd()
    importlib.invalidate_caches()
    here = PathFinder.find_spec(top, [folder])
    place = None if here is None else here.origin or str(next(iter(here.submodule_search_locations or ()), folder))
    for known in [known for known in _imported if known.partition(".")[0] == top]:
        # Read anew what was edited in a notebook, or is another file of the same name in another folder.
        path = _file(sys.modules[known]) if known in sys.modules else None
        moved = place is not None and path is not None and not path.is_relative_to(Path(place).resolve().parent)
        if path is None or not path.is_file() or moved or sha256_file(path) != _imported[known]:
            for each in [each for each in sys.modules if each == known or (moved and each.partition(".")[0] == top)]:
                del sys.modules[each]
            _imported.pop(known)
    loaded = sys.modules.get(top)
    if here is not None and loaded is not None and here.origin is not None and _file(loaded) != Path(here.origin).resolve():
        raise RecipeError("method", f"is '{name}', and another module named '{top}' is loaded already", f"rename {Path(here.origin).name}")
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        with one_line(name, f"importing {module_name}"):
            module = importlib.import_module(module_name)
    except RecipeError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and missing.name and f"{module_name}.".startswith(f"{missing.name}."):
            near = nearest(top, [path.stem for path in Path(folder).glob("*.py")])
            advice = near if near.startswith("did you mean") else f"is {top}.py in this folder?"
            raise RecipeError("method", f"is '{name}', and there is no module '{missing.name}'", advice) from None
        raise
    finally:
        sys.path[:] = before
    path = _file(module)
    if path is not None and module_name not in _imported:
        _imported[module_name] = sha256_file(path)
    return module


def _file(module: ModuleType) -> Path | None:
    name = getattr(module, "__file__", None)
    return None if name is None else Path(name).resolve()


def _place(error: BaseException) -> str:
    """The innermost line that is the user's: neither of this package, nor of an installed one, nor of Python."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" in {Path(error.filename).name}, line {error.lineno}"
    others = (str(Path(__file__).parents[1]), str(Path(os.__file__).parent), "<frozen")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(others) and "site-packages" not in frame.filename:
            return f" in {Path(frame.filename).name}, line {frame.lineno}"
    return ""


def _number(value: int | str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value
