"""Reading recipes: found by name among those shipped (`manifests/*.yaml`) or by path, composed, overridden, validated.

A recipe can stand on another (`base: pocus`: every key that it does not say itself) and take in others' sources (`include: [us4-clust]`).
A key that is not known is an error that names the nearest right one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from usdata.errors import RecipeError, nearest
from usdata.recipe import Recipe, VideoField


def shipped_recipes() -> dict[str, Path]:
    """Name and file of each recipe that comes with the package."""
    installed = Path(str(resources.files("usdata"))) / "manifests"
    folder = installed if installed.is_dir() else Path(__file__).resolve().parent.parent / "manifests"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Find, read, override and validate a recipe.

    Args:
        recipe: The name of a shipped recipe, or a YAML file.
        overrides: `a.b=c` each; a list is entered by position (`sources.0.sampling.hz=5`), values are YAML.

    Raises:
        RecipeError: It is not found, is no YAML, or does not validate; the message names the key and the nearest right one.
    """
    values = _load_values(recipe, seen=())
    for override in overrides:
        _apply_override(values, override)
    return _validated(values, str(recipe), overrides)


def _load_values(recipe: str | Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = _find(recipe)
    if path in seen:
        raise RecipeError(path, "its 'base' or 'include' leads back to itself", "remove one link of the circle")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(path, f"cannot be read ({error.strerror})", "check the file's permissions") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(path, f"is no readable YAML ({' '.join(str(error).split())})", "mend the file") from None
    if not isinstance(values, dict):
        raise RecipeError(path, "holds no recipe", "start from a shipped one, such as 'manifests/phantom.yaml'")
    base, include = values.pop("base", None), values.pop("include", None)
    inherited: dict[str, Any] = {}
    if include is not None:
        if not isinstance(include, list) or not all(isinstance(name, str) for name in include):
            raise RecipeError(path, "'include' is no list of recipes", "name them, such as 'include: [us4-clust, us4-butterfly]'")
        inherited["sources"] = _included_sources(include, path, (*seen, path))
    if base is not None:
        if not isinstance(base, str):
            raise RecipeError(path, "'base' is no name or path of a recipe", "name one, such as 'base: pocus-lung'")
        inherited = _merged(_load_values(_beside(base, path), (*seen, path)), inherited)
    return _merged(inherited, values)


def _included_sources(names: Sequence[str], path: Path, seen: tuple[Path, ...]) -> list[Any]:
    """The sources of other recipes, one after the other; what else those say is their own."""
    found: dict[Any, Any] = {}
    for name in names:
        for source in _load_values(_beside(name, path), seen).get("sources") or []:
            key = source.get("name") if isinstance(source, Mapping) else None
            if key in found and found[key] != source:
                raise RecipeError(path, f"two of the recipes that it includes have a source '{key}'", "include one of them")
            found[key] = source
    return list(found.values())


def _beside(name: str, path: Path) -> str | Path:
    """A recipe named by another one: a file beside that one, or a shipped recipe's name."""
    beside = path.parent / name
    return beside if beside.is_file() else name


def _find(recipe: str | Path) -> Path:
    shipped = shipped_recipes()
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    path = Path(recipe)
    if path.is_file():
        return path.resolve()
    looks_like_file = path.suffix in {".yaml", ".yml"} or len(path.parts) > 1
    advice = "give the path of a YAML file, or a shipped recipe's name" if looks_like_file else nearest(str(recipe), shipped)
    raise RecipeError(recipe, "no such recipe", advice)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid upon `base`, mapping by mapping; sources are matched by their names, other lists are replaced whole."""
    result = dict(base)
    for key, value in over.items():
        if key == "sources" and isinstance(value, list) and isinstance(base.get(key), list):
            result[key] = _merged_sources(base[key], value)
        elif isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            result[key] = _merged(base[key], value)
        else:
            result[key] = value
    return result


def _merged_sources(base: list[Any], over: list[Any]) -> list[Any]:
    def name_of(source: Any) -> Any:
        return source.get("name") if isinstance(source, Mapping) else None

    changes = {name_of(source): source for source in over}
    known = {name_of(source) for source in base}
    kept = [_merged(source, changes[name_of(source)]) if name_of(source) in changes else source for source in base]
    return kept + [source for source in over if name_of(source) not in known]


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override}", "is not of the form a.b=c", "write for example --set folds.count=3")
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}", f"'{text}' is no YAML value", "quote it") from None
    place: Any = values
    parts = key.split(".")
    for part, following in pairwise(parts):
        if isinstance(place, list):
            place = _item(place, part, override)
        elif isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {} if not following.isdigit() else []
            place = place[part]
        else:
            raise RecipeError(
                f"--set {override}", f"'{part}' lies below a plain value", "see the recipe's keys in docs/contracts/recipe.md"
            )
    if isinstance(place, list):
        _item(place, parts[-1], override)
        place[int(parts[-1])] = value
    elif isinstance(place, dict):
        place[parts[-1]] = value
    else:
        raise RecipeError(
            f"--set {override}", f"'{parts[-1]}' lies below a plain value", "see the recipe's keys in docs/contracts/recipe.md"
        )


def _item(place: list[Any], part: str, override: str) -> Any:
    if not part.isdigit() or int(part) >= len(place):
        raise RecipeError(f"--set {override}", f"'{part}' is no position in a list of {len(place)}", "positions count from 0")
    return place[int(part)]


def _validated(values: dict[str, Any], recipe: str, overrides: Sequence[str]) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        place = ".".join(str(part) for part in _first(error)["loc"] if part != "[key]") + "."
        keys = {override: override.partition("=")[0] + "." for override in reversed(overrides)}
        wrong = next((override for override, key in keys.items() if place.startswith(key) or key.startswith(place)), None)
        raise RecipeError(recipe if wrong is None else f"--set {wrong}", *explain_validation(error, Recipe)) from None


def _first(error: ValidationError) -> ErrorDetails:
    """The error that is told: an unknown key before all others."""
    return next((e for e in error.errors() if e["type"] == "extra_forbidden" or e["loc"][-1:] == ("[key]",)), error.errors()[0])


def explain_validation(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """The first validation error as (reason, advice); an unknown key comes with the nearest known one."""
    first = _first(error)
    place = ".".join(str(part) for part in first["loc"]) or "the recipe"
    if first["type"] == "literal_error" and first["loc"][-1:] == ("[key]",):
        wrong = str(first["loc"][-2])
        return f"unknown key '{'.'.join(str(part) for part in first['loc'][:-1])}'", nearest(wrong, VideoField.__args__)  # type: ignore[attr-defined]
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        return f"unknown key '{place}'", nearest(str(first["loc"][-1]), known)
    message = first["msg"].removeprefix("Value error, ")
    given = f" (given: {first['input']!r})" if isinstance(first["input"], (str, int, float, bool)) else ""
    return f"'{place}': {message[0].lower() + message[1:]}{given}", "see the keys in docs/contracts/recipe.md"


def _keys_at(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Names of the fields that a nested model has at a place of the recipe."""
    current: type[BaseModel] = model
    for part in place:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation if part in current.model_fields else None
        nested = [annotation, *getattr(annotation, "__args__", ())]
        found = next((kind for kind in nested if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if found is None:
            return list(VideoField.__args__)  # type: ignore[attr-defined]
        current = found
    return list(current.model_fields)
