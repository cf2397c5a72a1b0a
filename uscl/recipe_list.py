"""The training recipes that come with the package: what each is, and where it was published.

A recipe's first line says it: `# Name (authors, venue, arXiv), perhaps an aside: one sentence`. In comes nothing; out comes a row a recipe,
sorted by name. Nothing heavy is imported.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from uscl.config import load_config, recipe_names, recipe_text

FIRST_LINE = re.compile(r"# (?P<title>[^(:]+?)(?: \((?P<paper>[^()]+)\))?(?P<aside>, [^:]+)?: (?P<sentence>\S.*)")
_COLUMNS = 80
_PAPER_COLUMNS = 22


@dataclass(frozen=True)
class RecipeRow:
    """A recipe.

    Attributes:
        name: What `--recipe` takes.
        title: The method's name, with an aside where there is one.
        paper: Authors, venue and arXiv number; None: it was not published.
        sentence: What it is.
        method: The key `method` of its configuration.
    """

    name: str
    title: str
    paper: str | None
    sentence: str
    method: str


def list_recipes() -> list[RecipeRow]:
    """The recipes that come with the package, sorted by name."""
    rows = []
    for name in recipe_names():
        found = FIRST_LINE.fullmatch(recipe_text(name).splitlines()[0].strip())
        if found is None:
            raise ValueError(f"the first line of recipe {name} is not '# Name (paper): one sentence'")
        title = found["title"] + (found["aside"] or "")
        rows.append(RecipeRow(name, title, found["paper"], found["sentence"], load_config(name).method))
    return rows


def print_recipes(rows: Iterable[RecipeRow]) -> None:
    """Print recipes on standard output in three columns, 80 characters wide: the name, what it is, and the paper."""
    rows = list(rows)
    name_columns = max(len(row.name) for row in rows)
    columns = _COLUMNS - name_columns - _PAPER_COLUMNS - 4
    for row in rows:
        what = textwrap.wrap(f"{row.title}: {row.sentence}", columns)
        paper = textwrap.wrap(row.paper or "", _PAPER_COLUMNS)
        for line in range(max(len(what), len(paper))):
            cells = (row.name if line == 0 else "", *(part[line] if line < len(part) else "" for part in (what, paper)))
            print(f"{cells[0]:{name_columns}}  {cells[1]:{columns}}  {cells[2]}".rstrip())
