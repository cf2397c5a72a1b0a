"""A command line in this process: what it says and its exit code, without the second or more that a new interpreter takes.

That the programs themselves say and end so is for `tests/test_cli.py`, which starts them.
"""

from __future__ import annotations

import subprocess
from importlib import import_module
from pathlib import Path

from typer.testing import CliRunner


def run_here(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What `python -m program arguments` would say."""
    words = [str(word) for word in arguments]
    done = CliRunner().invoke(import_module(f"{program}.cli").app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess([program, *words], done.exit_code, done.stdout, done.stderr)
