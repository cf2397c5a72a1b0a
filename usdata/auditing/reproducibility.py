"""What it takes to make the same data set again: versions, digests, the recipe as it was resolved, and the commands.

Comes in: dataset.json. Goes out: plain values. Guarantees: the recipe's text, read back, has the digest that the tables carry; no path of a
machine.
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from usdata.auditing.tables import Tables
from usdata.building.identity import ORIGINS
from usdata.manifest import duplicates_version
from usdata.recipe import Recipe

_DIGESTS = ("digest", "recipe_digest", "raw_digest", "steps_digest", "input_digest")
_NO_DECODERS = {"python", "usdata", "pyarrow", "numpy"}


def reproducibility(tables: Tables) -> dict[str, Any]:
    """What is needed to repeat the build.

    Returns:
        `digests` (name to sha256), `versions`, `decoders` (those versions that decide about pixels), `schema_version`,
        `duplicates_version`, `recipe` (YAML without defaults; None where dataset.json has none), `reviews` (answer to clips), `published`
        (split and folds that no recipe made: column to name, sha256 and leaks), `commands`.
    """
    about = tables.dataset.about
    versions = {str(name): str(version) for name, version in sorted((about.get("versions") or {}).items())}
    published = {column: dict(about[entry]) for column, entry in ORIGINS.items() if entry in about}
    answers = [answer.get("answer") for answer in ((about.get("recipe") or {}).get("review") or {}).values()]
    recipe = recipe_text(about.get("recipe"))
    commands = ["usdata build RECIPE.yaml --raw RAW --out SET"] if recipe else []
    for column, origin in published.items():
        rest = f" --rest {origin['rest']}" if origin.get("rest") is not None else ""
        leaks = " --allow-leaks" if any((origin.get("leaks") or {}).values()) else ""
        commands.append(f"usdata split SET --published '{origin.get('name')}' --apply{rest}{leaks}   # {column}")
    return {
        "digests": {name: str(about[name]) for name in _DIGESTS if about.get(name)},
        "versions": versions,
        "decoders": {name: version for name, version in versions.items() if name not in _NO_DECODERS},
        "schema_version": about["schema_version"],
        "duplicates_version": duplicates_version(about),
        "recipe": recipe,
        "reviews": {answer: answers.count(answer) for answer in sorted({str(answer) for answer in answers})},
        "published": published,
        "commands": [*commands, "usdata audit SET"],
    }


def recipe_text(recipe: dict[str, Any] | None) -> str | None:
    """A resolved recipe as YAML, without what is default anyway; as it stands where this version does not know it."""
    if not recipe:
        return None
    shown = recipe
    try:
        parsed = Recipe.model_validate(recipe)
        short = parsed.model_dump(mode="json", exclude_defaults=True)
        if Recipe.model_validate(short).digest == parsed.digest:
            shown = short
    except ValidationError:
        pass  # an older version's recipe: shown as it was written
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120)
