"""No command but `usdata pull` uses the network: with every attempt written down and refused, in worker processes too, all of them work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from tests.security.every_command import NOT_RUN, lines

REPOSITORY = Path(__file__).resolve().parents[2]
TRY = """
import socket, multiprocessing
def attempt():
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    except PermissionError:
        pass
if __name__ == "__main__":
    attempt()
    child = multiprocessing.get_context("spawn").Process(target=attempt)
    child.start(); child.join()
"""


def watched(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    log = folder / "network.log"
    place = os.pathsep.join((str(REPOSITORY / "tests" / "security" / "watch"), str(REPOSITORY)))
    environment = os.environ | {"PYTHONPATH": place, "NETWORK_LOG": str(log), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment, check=False)
    return done, log.read_text().splitlines() if log.exists() else []


def test_the_watch_sees_attempts_in_workers_too(tmp_path: Path) -> None:
    (tmp_path / "attempt.py").write_text(TRY)
    done, attempts = watched(tmp_path, "attempt.py")
    assert done.returncode == 0, done.stderr
    assert len([line for line in attempts if line.startswith("socket.getaddrinfo")]) == 2


def test_every_command_is_run_or_named() -> None:
    run = {" ".join(line[:2]) for line in lines(Path("folder"))}
    known = {f"{program} {name}" for program in ("usdata", "uscl") for name in commands(program)}
    assert run | NOT_RUN == known
    assert {"usdata pull"} == NOT_RUN


def commands(program: str) -> set[str]:
    app = __import__(f"{program}.cli", fromlist=["app"]).app
    return set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_every_command_but_pull_works_without_a_network(tmp_path: Path) -> None:
    done, attempts = watched(tmp_path, "-m", "tests.security.every_command", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert attempts == []
