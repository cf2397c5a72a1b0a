"""The pages of commands are those of the code, and name just the options that the command lines take."""

from __future__ import annotations

import re
import sys

import pytest
from typer.main import get_command

from tests.docs.pages import REPOSITORY

FOLDER = REPOSITORY / "docs" / "reference"


@pytest.mark.parametrize("program", ["usdata", "uscl"])
def test_the_page_is_the_codes(program: str) -> None:
    sys.path.insert(0, str(FOLDER))
    sys.modules.pop("generate", None)  # that of the contracts has the same name
    try:
        from generate import page  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
        sys.modules.pop("generate", None)
    assert (FOLDER / f"{program}.md").read_text(encoding="utf-8") == page(program), "run: python docs/reference/generate.py"


@pytest.mark.parametrize("program", ["usdata", "uscl"])
def test_each_section_names_the_options_that_typer_takes(program: str) -> None:
    """Typer's own parser as the oracle: the page reads declarations instead."""
    sections = (FOLDER / f"{program}.md").read_text(encoding="utf-8").split("\n## ")[1:]
    commands = get_command(__import__(f"{program}.cli", fromlist=["app"]).app).commands  # type: ignore[attr-defined]
    assert [section.splitlines()[0] for section in sections] == list(commands)
    for section in sections:
        name = section.splitlines()[0]
        named = set(re.findall(r"(?<=[`, ])--[a-z][a-z-]*", " ".join(re.findall(r"^\| `(--[^`]*)`", section, flags=re.MULTILINE))))
        named |= set(re.findall(r"^\| `(--[a-z-]+)", section, flags=re.MULTILINE))
        taken = {option for param in commands[name].params for option in (*param.opts, *param.secondary_opts) if option.startswith("--")}
        assert named == taken - {"--help"}, name
        needed = {param.opts[0] for param in commands[name].params if param.required and param.opts[0].startswith("--")}
        assert (
            set(re.findall(r"^\| `(--[a-z-]+)[^|]*\|(?:[^|]|\\\|)*\| needed \|", section.replace("\\|", "/"), flags=re.MULTILINE)) == needed
        )
