"""Every command and option that a page names exists, with such arguments, choices and keys. test_running.py runs them."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tests.docs.pages import PAGES, PROGRAMS, REPOSITORY, Block, blocks_of, inline_code, is_synopsis, words
from uscl.config import load_config
from usdata.recipe_files import load_recipe, shipped_recipes

APPS: dict[str, dict[str, Any]] = {
    program: get_command(__import__(f"{program}.cli", fromlist=["app"]).app).commands  # type: ignore[attr-defined]
    for program in ("usdata", "uscl")
}
BENCHMARKS = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "benchmarks").glob("*.py"))
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Options of other programs that pages name beside ours.
FOREIGN = {"--logdir", "--standalone", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--help", "--version"}
# A user's own class is not here, and asking timm for a network takes seconds: both are run by test_running.py.
FOREIGN_SETTING = re.compile(r"method=\w+:|backbone=timm/")
CHOICES = {"--engine": {"local", "ray"}, "--format": {"safetensors", "timm", "onnx"}}
IDS = [str(page.relative_to(REPOSITORY)) for page in PAGES]


def options_of(command: Any) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")} | {"--help"}


def check_ours(parts: list[str]) -> None:
    """A command of `usdata` or `uscl` is one that its command line takes; of a synopsis (brackets, choices) the names alone."""
    program, *rest = parts
    if not rest or rest[0] in ("--help", "--version", "--install-completion", "COMMAND"):
        return
    assert rest[0] in APPS[program], f"{program} has no command '{rest[0]}'"
    command = APPS[program][rest[0]]
    options = [part.strip("[]") for part in rest[1:] if part.strip("[").startswith("--")]
    for option in options:
        assert option.split("=")[0] in options_of(command), f"{program} {rest[0]} has no option {option}"
    if is_synopsis(shlex.join(parts)):
        return
    with command.make_context(rest[0], list(rest[1:])) as context:
        given = context.params
    for option, allowed in CHOICES.items():
        if (value := given.get(option[2:])) is not None and option in rest:
            assert str(value) in allowed, f"{option} {value}"
    settings = [value for value in given.get("overrides") or () if value not in ("a.b=c", "A.B=C")]
    if program == "uscl" and settings and not any(FOREIGN_SETTING.match(value) for value in settings):
        named = given.get("recipes") or given.get("recipe") or "uscl"
        for recipe in [named] if isinstance(named, str) else named:
            load_config(recipe, settings)
    if program == "usdata" and rest[0] == "build":
        load_recipe(given["recipe"] if given["recipe"] in shipped_recipes() else "phantom", settings)


def check_python(parts: list[str]) -> None:
    """A program of this repository is there, and takes the options."""
    target = parts[1]
    if target == "-m":
        path = REPOSITORY / (parts[2].replace(".", "/") + ".py")
    elif target.startswith(("benchmarks/", "docs/", "tests/")):
        path = REPOSITORY / target
    else:
        return
    text = path.read_text(encoding="utf-8")
    for option in (part for part in parts[2:] if part.startswith("--")):
        assert f'"{option}"' in text, f"{target} has no option {option}"


def check(command: str) -> None:
    parts = words(command)
    program = parts[0]
    assert program in PROGRAMS, f"'{program}' is no known program: mark the block as something else, or add it"
    if program in APPS:
        check_ours(parts)
    elif program in ("python", "python3"):
        check_python(parts)
    elif program == "make":
        for target in parts[1:]:
            name, sign, _ = target.partition("=")
            known = rf"\$\({name}\)" if sign else rf"^{name}:"
            assert re.search(known, MAKEFILE, flags=re.MULTILINE), f"make has no {'variable' if sign else 'target'} {name}"
    elif program in ("pip", "pipx", "uv"):
        for extra in re.findall(r"usdata-uscl\[(\w+)\]", command):
            assert extra in PROJECT["optional-dependencies"], f"there is no extra '{extra}'"
    elif program == "bash":
        assert (REPOSITORY / parts[1]).exists(), parts[1]


def shell_blocks(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.language == "shell"]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_line_is_taken(page: Path) -> None:
    wrong = []
    for block in shell_blocks(page):
        for command in block.commands():
            try:
                check(command)
            except Exception as error:  # noqa: BLE001 - the parser's own errors too: each is told with its place
                wrong.append(f"{block.place}: {command}: {type(error).__name__} {getattr(error, 'message', error)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_and_options_in_running_text_exist(page: Path) -> None:
    every = {option for commands in APPS.values() for command in commands.values() for option in options_of(command)} | FOREIGN
    wrong = []
    for code in inline_code(page):
        try:
            parts = shlex.split(code)
        except ValueError:
            continue
        if not parts:
            continue
        if parts[0] in APPS and len(parts) > 1:
            command = APPS[parts[0]].get(parts[1])
            if command is None:
                if not re.fullmatch(r"--\w+|COMMAND|\.\.\.", parts[1]):
                    wrong.append(f"{code}: no such command")
                continue
            wrong += [
                f"{code}: no option {part}" for part in parts[2:] if part.startswith("--") and part.split("=")[0] not in options_of(command)
            ]
        elif parts[0].startswith("--") and not parts[0].endswith("-"):
            names = {name for part in parts if part.startswith("--") for name in re.split("[/,]", part) if name.startswith("--")}
            wrong += [f"{code}: no command has {name}" for name in names if name not in every and f'"{name}"' not in BENCHMARKS]
    assert not wrong, "\n".join(f"{page.name}: {line}" for line in wrong)


def test_yaml_blocks_are_recipes_that_load(tmp_path: Path) -> None:
    loaded = 0
    for page in PAGES:
        for block in blocks_of(page):
            if block.language == "yaml" and "sources:" in block.text and "name:" in block.text:
                path = tmp_path / f"{page.stem}-{block.line}.yaml"
                path.write_text(block.text)
                load_recipe(path)
                loaded += 1
    assert loaded >= 3


def test_wrong_commands_are_found() -> None:
    """The check itself: each of these is refused."""
    for command in (
        "usdata biuld mine.yaml --raw clips --out set",
        "usdata build mine.yaml --raw clips",
        "usdata build mine.yaml --raw clips --out set --set image.corp=mask",
        "usdata build mine.yaml --raw clips --out set --engine rey",
        "uscl pretrain SET --out RUN --recipe nothing --set epochs=1",
        "uscl pretrain SET --out RUN --set bacth_size=1",
        "uscl evaluate lienar SET --weights random --out DIR",
        "uscl evaluate linear SET --weights random --out DIR --protocol both-of-them",
        "uscl pretrain SET --out RUN [--recpie uscl]",
        "usdata audit set set-2 set-3",
        "python benchmarks/methods.py OUT --sedes 3",
        "python benchmarks/nothing.py",
        "make everything",
        "make bench CLIPPS=FOLDER",
        "pip install 'usdata-uscl[rya]'",
        "wget file",
    ):
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the parser raises
            check(command)
