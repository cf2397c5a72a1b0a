"""What stands in the pages: code blocks with their markers, the commands in them, commands and options named in running text.

A comment before a block says what a test cannot guess; readers do not see it:

    <!-- test: not run, REASON -->      the commands are held against the command lines, and not run
    <!-- test: file NAME -->            the block is the file NAME, which the page tells its reader to save
    <!-- test: exits 2 0 -->            the exit codes of the block's commands, where they are not all 0
    <!-- test: output, of ... -->       each line of the block is printed by the commands before it
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PROGRAMS = ("usdata", "uscl", "python", "python3", "torchrun", "pip", "pipx", "uv", "make", "bash", "cp", "export", "pytest", "tensorboard")
MARKER = re.compile(r"<!-- test: (not run, |file |exits |output, )(.+?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        page: Relative to the repository.
        line: Its first line, from 1.
        language: "shell", or the word after the fence, or "text".
        text: As it stands.
        marker: "not run", "file", "exits", "output", or "".
        value: What the marker says: the reason, the name, the codes.
    """

    page: str
    line: int
    language: str
    text: str
    marker: str = ""
    value: str = ""

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page}:{self.line}"

    def commands(self) -> list[str]:
        """The commands of a shell block, each on one line and without its comment; output under `$ ` lines is left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if lines[0].startswith("$ "):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        stripped = (re.sub(r"(^|\s+)#\s.*$", "", line).strip() for line in lines)
        return [line for line in stripped if line]


def blocks_of(path: Path) -> list[Block]:
    """The code blocks of a page in order."""
    found = []
    marker = value = ""
    for token in MarkdownIt("commonmark", {"html": True}).parse(path.read_text(encoding="utf-8")):
        if token.type == "html_block" and (match := MARKER.search(token.content)):
            marker, value = match[1].strip(" ,"), " ".join(match[2].split())
        elif token.type in ("fence", "code_block") and token.map:
            language = token.info.strip() or ("shell" if _is_shell(token.content) else "text")
            language = "shell" if language in ("bash", "sh", "console") else language
            found.append(Block(str(path.relative_to(REPOSITORY)), token.map[0] + 1, language, token.content, marker, value))
            marker = value = ""
        elif marker and token.type != "html_block":
            raise AssertionError(f"{path.name}: the comment '{marker} {value}' does not stand before a block")
    return found


def inline_code(path: Path) -> list[str]:
    """What stands between backticks in running text."""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    return [
        child.content.replace("\\|", "|")
        for token in tokens
        if token.type == "inline"
        for child in token.children or ()
        if child.type == "code_inline"
    ]


def words(command: str) -> list[str]:
    """A command's words, without assignments before it, wrappers, paths of the programs, and where its output goes."""
    parts = shlex.split(command)
    parts = parts[: parts.index(">")] if ">" in parts else parts
    while parts and re.fullmatch(r"[A-Z_]+=.*", parts[0]):
        parts = parts[1:]
    if parts and parts[0] == "torchrun" and "-m" in parts:
        parts = parts[parts.index("-m") + 1 :]
    elif parts[:2] == ["python", "-m"] and parts[2] in ("usdata", "uscl"):
        parts = parts[2:]
    return [parts[0].removeprefix(".venv/bin/"), *parts[1:]] if parts else []


def is_synopsis(command: str) -> bool:
    """Whether it shows what may be given, in brackets or with choices, and is no command to type."""
    return any(part.startswith("[") or "..." in part or re.fullmatch(r"\w+(\|\w+)+", part) for part in words(command))


def _is_shell(text: str) -> bool:
    first = text.strip().splitlines()[0] if text.strip() else ""
    if first.startswith("$ "):
        return True
    try:
        parts = words(re.sub(r"\s+#\s.*$", "", first))
    except ValueError:
        return False
    return bool(parts) and parts[0] in PROGRAMS
