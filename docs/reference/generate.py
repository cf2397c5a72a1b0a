"""Write the pages of commands from the two command lines: `python docs/reference/generate.py`. A test holds them equal."""

from __future__ import annotations

import enum
import inspect
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.models import OptionInfo

FOLDER = Path(__file__).resolve().parent

HEAD = """\
# Commands of {program}

{about}

Written by `docs/reference/generate.py` from what `{program} COMMAND --help` says.

Exit codes: 0 done; 1 a fault of ours; 2 the input or the configuration is wrong, in one line that says what to do; 3 done, with
findings where they were asked for (`--fail`, `--fail-on`); 75 stopped by a signal with everything saved: run the same command again.
Results go to the standard output, progress and talk to the standard error. `--version` prints the version.

| command | what it does |
|---|---|
"""


@dataclass(frozen=True)
class Parameter:
    """An argument or option as its function declares it.

    Attributes:
        names: How an option is spelt; empty for an argument.
        value: What stands for its value; empty for a flag.
        meaning: Its help.
        default: As the page tells it; "needed" where it must be given.
        again: Whether it may be given more than once.
    """

    names: tuple[str, ...]
    value: str
    meaning: str
    default: str
    again: bool


def commands(program: str) -> dict[str, tuple[str, list[Parameter]]]:
    """The commands of `usdata` or `uscl` in order: each one's help and its parameters."""
    app: typer.Typer = __import__(f"{program}.cli", fromlist=["app"]).app
    found = {}
    for command in app.registered_commands:
        function = command.callback
        assert function is not None
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = [_parameter(name, hints[name], given.default) for name, given in inspect.signature(function).parameters.items()]
        name = command.name or function.__name__.replace("_", "-")
        found[name] = (inspect.cleandoc(function.__doc__ or ""), parameters)
    return found


def page(program: str) -> str:
    """The page on the commands of `usdata` or `uscl`."""
    about = __import__(f"{program}.cli", fromlist=["app"]).app.info.help
    parts = [HEAD.format(program=program, about=_one_line(about))]
    found = commands(program)
    for name, (text, _) in found.items():
        parts.append(f"| [`{name}`](#{name}) | {_cell(_texts(text)[0])} |\n")
    for name, (text, parameters) in found.items():
        parts.append(_section(program, name, text, parameters))
    return "".join(parts)


def _section(program: str, name: str, text: str, parameters: list[Parameter]) -> str:
    about, examples, rest = _texts(text)
    arguments = [given for given in parameters if not given.names]
    options = [given for given in parameters if given.names]
    needed = [f"{given.names[0]} {given.value}" for given in options if given.default == "needed"]
    others = ["[OPTIONS]"] if len(options) > len(needed) else []
    usage = " ".join([program, name, *(given.value for given in arguments), *needed, *others])
    parts = [f"\n## {name}\n\n{about}\n", *(f"\n{words}\n" for words in rest), f"\n```text\n{usage}\n```\n"]
    if examples:
        parts.append("\nFor example:\n\n" + "".join(f"    {line}\n" for line in examples))
    if arguments:
        parts.append("\n| argument | meaning |\n|---|---|\n")
        parts += [f"| `{_cell(given.value)}` | {_cell(given.meaning)} |\n" for given in arguments]
    if options:
        parts.append("\n| option | meaning | default |\n|---|---|---|\n")
        for given in options:
            spelt = _cell(f"{', '.join(given.names)} {given.value}".strip())
            parts.append(f"| `{spelt}` | {_cell(given.meaning)} | {given.default} |\n")
    return "".join(parts)


def _texts(text: str) -> tuple[str, list[str], list[str]]:
    """The help's first paragraph, the lines of its examples, and its other paragraphs."""
    paragraphs = text.split("\n\n")
    examples = [line for words in paragraphs if words.startswith("\b") for line in words.splitlines()[1:]]
    plain = [_one_line(words) for words in paragraphs if not words.startswith("\b")]
    return plain[0], examples, plain[1:]


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    kind, info = typing.get_args(hint)[0], typing.get_args(hint)[1]
    kinds = [part for part in (typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)) if part is not type(None)]
    again = typing.get_origin(kinds[0]) is list
    if again:
        kinds = list(typing.get_args(kinds[0]))
    is_option = isinstance(info, OptionInfo)
    needed = default is inspect.Parameter.empty or default is ...
    if is_option:
        # In `Annotated`, Typer's first positional argument is a name too.
        given = [part for part in (info.default, *(info.param_decls or ())) if isinstance(part, str)]
        names = tuple(part for names in given for part in names.split("/") if part.startswith("-"))
        if not names:
            dashed = name.replace("_", "-")
            names = (f"--{dashed}", f"--no-{dashed}") if kinds[0] is bool else (f"--{dashed}",)
        value = "" if kinds[0] is bool else info.metavar or _kind(kinds[0])
    else:
        names = ()
        value = info.metavar or ("|".join(part.value for part in kinds[0]) if _is_choice(kinds[0]) else name.upper())
        value += "..." if again and not value.endswith("...") else ""
        value = value if needed else f"[{value.strip('[]')}]"
    shown = (
        "needed"
        if needed
        else ""
        if default is None or default is False
        else "on"
        if default is True
        else f"`{getattr(default, 'value', default)}`"
    )
    return Parameter(names, value, info.help or "", shown, again)


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _kind(kind: Any) -> str:
    if _is_choice(kind):
        return "|".join(part.value for part in kind)
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|").replace("<", "&lt;")


PAGES = {f"{program}.md": program for program in ("usdata", "uscl")}

if __name__ == "__main__":
    for name, program in PAGES.items():
        (FOLDER / name).write_text(page(program), encoding="utf-8")
        print(FOLDER / name)
