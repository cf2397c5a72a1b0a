"""The pages' commands and code are run, in order, in a folder of their own, on simulated clips.

What a page cannot run carries a marker with its reason (tests/docs/pages.py); `test_what_is_not_run_says_why` prints the list.
Training is made small (`kit.SMALL`); nothing else of a command is changed. Where a page makes the same folder twice, the commands are
taken for alternatives, and the first one's folder goes.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.kit import SMALL, SMALL_SEGMENTATION, Kit
from tests.docs.pages import PAGES, REPOSITORY, Block, blocks_of, is_synopsis, words

# Pages whose commands are programs of this repository on real data: each says on which clips and machine, and its options are checked.
MEASURED = ("docs/performance.md", "docs/results/")
# Built from the help texts; the same commands stand in the guides.
GENERATED = ("docs/reference/",)
# Installing, and what takes the whole repository.
NOT_OURS = ("make", "pip", "pipx", "uv", "pytest", "tensorboard")
RUN = [page for page in PAGES if not str(page.relative_to(REPOSITORY)).startswith((*MEASURED, *GENERATED, "CONTRIBUTING"))]
RUN = [page for page in RUN if any(block.language in ("shell", "python") for block in blocks_of(page))]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("kit"))


def runs(block: Block) -> bool:
    return block.marker != "not run" and block.language in ("shell", "python")


def made_by(parts: list[str]) -> list[str]:
    """The folders and files that a command makes."""
    made = [value for option, value in pairwise(parts) if option in ("--out", "--write-recipe")]
    made += [value for option, value in pairwise(parts) if option == "--to" and parts[1] == "pull"]
    return made + ([parts[2]] if parts[:2] == ["usdata", "phantom"] else [])


def prepare(command: str, folder: Path, kit: Kit) -> str:
    """Place what the command reads, clear what it makes, and make training small."""
    parts = words(command)
    makes = made_by(parts)
    if parts[0] in ("usdata", "uscl") and not {"--resume", "--overwrite", "--dry-run"} & set(parts):
        for name in makes:
            path = folder / name
            if parts[1] == "pull" or name in [part for part in parts if parts.count(part) > 1]:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
    for part in parts:
        for name in {part, part.split("=")[-1], part.rstrip("/"), part.split("/")[0]}:
            if name not in makes and not (folder / name).exists():
                kit.place(name, folder / name)
    if parts[:2] == ["uscl", "pretrain"]:
        command += SMALL.replace(" --set image_size=32", "") if "image_size=" in command else SMALL
    if parts[:2] == ["uscl", "evaluate"] and "finetune" in parts:
        command += " --epochs 1"
    if parts[:2] == ["uscl", "segment"]:
        command += SMALL_SEGMENTATION
    return command.replace(".venv/bin/", "")


def run_page(page: Path, folder: Path, kit: Kit) -> list[tuple[float, str]]:
    environment = dict(kit.environment)
    times = []
    printed = ""
    for block in blocks_of(page):
        if block.marker == "output":
            for line in block.text.splitlines():
                assert " ".join(line.split()) in printed, f"{block.place}: not printed: {line}"
        if block.marker == "file":
            (folder / block.value).parent.mkdir(parents=True, exist_ok=True)
            if block.value.split("/")[0] in ("clips", "RAW") and not (folder / block.value.split("/")[0] / "labels.csv").exists():
                shutil.rmtree(folder / block.value.split("/")[0])
                kit.place(block.value.split("/")[0], folder / block.value.split("/")[0])
            (folder / block.value).write_text(block.text, encoding="utf-8")
            continue
        if not runs(block):
            continue
        commands = block.commands() if block.language == "shell" else [block.text]
        codes = [int(code) for code in block.value.split()] if block.marker == "exits" else [0] * len(commands)
        for command, code in zip(commands, codes, strict=True):
            if block.language == "python":
                for name in re.findall(r"\"([\w.-]+?)[/\"]", command):
                    if not (folder / name).exists():
                        kit.place(name, folder / name)
                # Beside a CPU build of torch, PyPI's torchvision imports only so.
                first = "import uscl.torchvision_compat\n" if "import torchvision" in command else ""
                arguments = [str(kit.programs / "python"), "-c", first + command]
            elif command.startswith("export "):
                name, _, value = shlex.split(command)[1].partition("=")
                environment[name] = value
                continue
            elif words(command)[0] in NOT_OURS or is_synopsis(command):
                continue
            else:
                arguments = ["bash", "-c", prepare(command, folder, kit)]
            start = time.perf_counter()
            done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500)
            printed = " ".join((done.stdout + done.stderr).split())
            times.append((time.perf_counter() - start, command.strip().splitlines()[0]))
            assert done.returncode == code, (
                f"{block.place}: {arguments[-1]}\nexit code {done.returncode}, not {code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
            )
    return times


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", RUN, ids=[str(page.relative_to(REPOSITORY)) for page in RUN])
def test_a_pages_commands_run_in_order(page: Path, tmp_path: Path, kit: Kit) -> None:
    for seconds, command in run_page(page, tmp_path, kit):
        print(f"{seconds:6.1f} s  {command}")


def test_the_tour_has_the_steps_of_the_demo() -> None:
    steps = re.findall(r"^step (.*?)(?: \|\|.*)?$", (REPOSITORY / "docs" / "demo.sh").read_text(encoding="utf-8"), flags=re.MULTILINE)
    tour = [command for block in blocks_of(REPOSITORY / "docs" / "tour.md") if block.language == "shell" for command in block.commands()]
    assert [shlex.split(step.replace("$DEMO", "demo")) for step in steps] == [
        shlex.split(command) for command in tour if command != "make demo"
    ]


def test_what_is_not_run_says_why() -> None:
    """Every reason is a sentence of its own, and no page hides behind markers."""
    listed = [(block.place, block.value, block.commands()) for page in PAGES for block in blocks_of(page) if block.marker == "not run"]
    for place, reason, commands in listed:
        print(f"{place}: {reason}: {'; '.join(commands)}")
        assert len(reason.split()) >= 4, f"{place}: say why"
    left_out = sum(len(commands) for _, _, commands in listed)
    run = sum(len(block.commands()) for page in RUN for block in blocks_of(page) if runs(block) and block.language == "shell")
    assert left_out < run / 2, f"{left_out} commands are not run, {run} are"


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(REPOSITORY)) for page in PAGES])
def test_python_in_the_pages_is_python(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "python":
            text = block.text if not block.text.startswith("    ") else "if True:\n" + block.text.replace("return ", "result = ")
            compile(text, block.place, "exec")
