"""What a shell offers at the Tab key: names of recipes, and runs below the working folder.

Nothing but folders is read, for it is asked at every key; where nothing fits, the shell completes names of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

# run.json of a run, and as uscl.run_folder calls it; that module is heavy.
RUN = "run.json"
MOST_SHOWN = 50
LEVELS = ("*", "*/*", "*/*/*")


def recipe_names(incomplete: str) -> list[str]:
    """Shipped recipes of training runs that begin so."""
    from importlib import resources

    names = (entry.name.removesuffix(".yaml") for entry in (resources.files("uscl") / "recipes").iterdir() if entry.name.endswith(".yaml"))
    return sorted(name for name in names if name.startswith(incomplete))


def weights(incomplete: str) -> list[str]:
    """Runs that begin so, and the words that stand for weights."""
    words = [word for word in ("random", "imagenet") if word.startswith(incomplete)]
    return [*words, *islice(_runs(incomplete), MOST_SHOWN)]


def _runs(incomplete: str) -> Iterator[str]:
    for level in LEVELS:
        for found in sorted(Path().glob(f"{level}/{RUN}")):
            if (name := found.parent.as_posix()).startswith(incomplete):
                yield name
