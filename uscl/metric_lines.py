"""The lines of metrics.jsonl as a reader finds them; it loads nothing heavy, so a list of runs can be printed at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def whole_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each whole line, None for one that is damaged; a last one that is being written, or that a kill cut short, is not one.

    Args:
        path: Of the file; where there is none, there are no lines.
    """
    if not path.is_file():
        return
    for text in path.read_bytes().split(b"\n")[:-1]:
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        yield line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def term_names(line: Mapping[str, Any]) -> list[str]:
    """The parts of the loss in a line, whatever the method calls them: what stands between `loss` and `learning_rate`."""
    names = list(line)
    if not {"loss", "learning_rate"} <= line.keys():
        return []
    return names[names.index("loss") + 1 : names.index("learning_rate")]
