"""Every benchmark of the project in one go, and one page of what they measured beside the limits: `make bench`.

    python benchmarks/all.py [OUT] [--clips CLIPS] [--only NAME ...] [--quick] [--list]

OUT (bench/) gets NAME.txt, what each program printed; figures.json, every figure with its limit; and bench.md, the page. A program that
stands in OUT already for the same commit and the same clips is not run again, so an interrupted run goes on. Without CLIPS (a folder with
pocus_lung/ and covid_blues/) simulated clips are made, and what needs real ones is left out and said to be. Sizes are such that all takes
some twenty minutes of two cores; docs/performance.md tells the larger ones. A limit that is missed is said so and is no failure; a program
that fails is one, and then the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measured import PLACE

HERE = Path(__file__).resolve().parent
REAL = ("pocus_lung", "covid_blues")


@dataclass(frozen=True)
class Benchmark:
    """One program, as it is run here.

    Attributes:
        name: Of the program, and of its output.
        words: Its arguments; {clips}, {raw}, {set} and {pretraining} stand for folders.
        quick: What takes their place under --quick; the last of an option that stands twice counts.
        needs_clips: Real clips; it is left out without them.
        device: Needs a GPU.
        program: The file, where it is not called like the benchmark.
    """

    name: str
    words: str
    quick: str = ""
    needs_clips: bool = False
    device: bool = False
    program: str = ""


BENCHMARKS = (
    Benchmark("read", "{raw} --repeats 3", "--repeats 1"),
    Benchmark("build", "{raw} --repeats 3", "--repeats 1"),
    Benchmark("exact_layers", "{raw} --repeats 3 --every 4", "--repeats 1"),
    Benchmark("seeing_cost", "{raw} --repeats 3 --every 4", "--repeats 1"),
    Benchmark("audit", "{set}", "--clips 2000 --frames 20000"),
    Benchmark("splits", "{set}"),
    Benchmark("image_formats", "{set} 19"),
    Benchmark("field_of_view", "{clips} --number 120", "--number 12"),
    Benchmark("depth_ruler", "{clips} --number 150", "--number 30"),
    Benchmark("modes", "{clips} --number 120", "--number 24"),
    Benchmark("planted_names", "{clips} --count 90 --clean 30", "--count 6 --clean 3"),
    Benchmark("hygiene_flags", "{clips} --count 140", "--count 14", needs_clips=True),
    Benchmark("duplicates", "{clips} --clips 20 --copies-per-clip 10", "--clips 3", needs_clips=True),
    Benchmark("duplicates_scale", "real {set} {pretraining} --clips 240", "--clips 20", needs_clips=True),
    Benchmark("guard", "{pretraining} {set}", needs_clips=True),
    Benchmark("feed", "{set} --repeats 3", "--repeats 1 --image-size 64 --batches 2"),
    Benchmark("train_step", "--threads 2 --repeats 3", "--repeats 1 --batch 4 --image-size 64"),
    Benchmark("meta_step", "--repeats 3", "--repeats 1 --batch 4 --image-size 32"),
    Benchmark("evaluate", "{set} --image-size 64 --repeats 1", "--image-size 32"),
    Benchmark("interval_coverage", "--runs 400 --groups 30", "--runs 4"),
    Benchmark("selection_optimism", "--runs 4", "--runs 2"),
    Benchmark("ladder", "--batch 32 256 --run", "--quick", device=True),
)


def main() -> None:
    asked = arguments()
    if asked.list:
        for each in BENCHMARKS:
            print(f"{each.name:20} python benchmarks/{each.program or each.name}.py {each.words}")
        return
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    folders = made(out / "made", asked)
    state = {"commit": commit(), "clips": str(asked.clips), "quick": asked.quick}
    results: list[dict[str, Any]] = []
    for each in BENCHMARKS:
        if not asked.only or each.name in asked.only:
            results.append(run(each, out, folders, state, asked))
    write(out, results, state)
    failed = [result["name"] for result in results if result["failed"]]
    if failed:
        sys.exit(f"error: {', '.join(failed)}: did not end well; see {out}/NAME.txt")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("bench"))
    parser.add_argument("--clips", type=Path, help="a folder with pocus_lung/ and covid_blues/")
    parser.add_argument("--only", nargs="*", choices=[each.name for each in BENCHMARKS], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="everything small, to see that it works; the figures say nothing")
    parser.add_argument("--list", action="store_true", help="tell the commands and do nothing")
    asked = parser.parse_args()
    if asked.clips is not None and not all((asked.clips / part).is_dir() for part in REAL):
        parser.error(f"{asked.clips} lacks {' or '.join(part + '/' for part in REAL)}")
    return asked


def made(place: Path, asked: argparse.Namespace) -> dict[str, str]:
    """The folders that arguments name, built where they are missing."""
    place.mkdir(parents=True, exist_ok=True)
    if asked.clips is None:
        raw, folder = place / "raw", place / "set"
        if not raw.is_dir():
            command("usdata", "phantom", raw, "--videos", 24 if asked.quick else 60)
        if not folder.is_dir():
            command("usdata", "build", "phantom", "--raw", raw, "--out", folder)
        return {"clips": "", "raw": str(raw), "set": str(folder), "pretraining": str(folder)}
    for recipe, part in (("pocus-convex", REAL[0]), ("covid-blues", REAL[1])):
        if not (place / recipe).is_dir():
            command("usdata", "build", recipe, "--raw", asked.clips / part, "--out", place / recipe)
    return {
        "clips": str(asked.clips),
        "raw": str(asked.clips),
        "set": str(place / "pocus-convex"),
        "pretraining": str(place / "covid-blues"),
    }


def command(name: str, *words: object) -> None:
    subprocess.run([sys.executable, "-m", name, *map(str, words)], check=True)


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def run(each: Benchmark, out: Path, folders: dict[str, str], state: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    """One program's result: taken over where it stands, else made."""
    kept = out / f"{each.name}.json"
    if kept.is_file():
        known: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if known["state"] == state and not known["failed"]:
            return known
    why = left_out(each, asked)
    words = [word for word in shlex.split(each.words.format(**folders)) if word] + (shlex.split(each.quick) if asked.quick else [])
    result: dict[str, Any] = {"name": each.name, "command": f"{each.program or each.name}.py {each.words}", "state": state}
    if why:
        return {**result, "left_out": why, "failed": False, "figures": [], "seconds": 0.0}
    print(f"{each.name} ... ", end="", flush=True)
    figures = out / f"{each.name}.figures"
    figures.unlink(missing_ok=True)
    began = time.perf_counter()
    with (out / f"{each.name}.txt").open("w", encoding="utf-8") as file:
        line = [sys.executable, str(HERE / f"{each.program or each.name}.py"), *words]
        done = subprocess.run(line, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, PLACE: str(figures.resolve())})
    seconds = time.perf_counter() - began
    found = [json.loads(text) for text in figures.read_text(encoding="utf-8").splitlines()] if figures.is_file() else []
    figures.unlink(missing_ok=True)
    result |= {"left_out": None, "failed": done.returncode != 0, "figures": found, "seconds": seconds}
    kept.write_text(json.dumps(result, indent=1), encoding="utf-8")
    missed = [figure["name"] for figure in found if holds(figure) is False]
    print(f"{seconds:.0f} s" + (", FAILED" if result["failed"] else f", missed: {'; '.join(missed)}" if missed else ""), flush=True)
    return result


def left_out(each: Benchmark, asked: argparse.Namespace) -> str:
    if each.needs_clips and asked.clips is None:
        return "needs real clips: --clips CLIPS"
    if each.device:
        import torch

        if not torch.cuda.is_available():
            return "needs a GPU"
    return ""


def holds(figure: dict[str, Any]) -> bool | None:
    """Whether a figure keeps its limit; None where it has none."""
    if figure["limit"] is None:
        return None
    return bool(figure["value"] <= figure["limit"] if figure["sense"] == "at most" else figure["value"] >= figure["limit"])


def write(out: Path, results: Sequence[dict[str, Any]], state: dict[str, Any]) -> None:
    """figures.json and bench.md."""
    about = {**state, "machine": machine(), "seconds": round(sum(result["seconds"] for result in results))}
    (out / "figures.json").write_text(json.dumps({"about": about, "benchmarks": list(results)}, indent=1), encoding="utf-8")
    lines = [
        "# What was measured in one go",
        "",
        f"Commit {state['commit']}; {about['machine']}; {'real clips' if state['clips'] != 'None' else 'simulated clips'}; "
        f"{about['seconds']} seconds in all{'; QUICK: everything small, the figures say nothing' if state['quick'] else ''}.",
        "",
        "| program | what | figure | limit | |",
        "|---|---|--:|--:|---|",
    ]
    for result in results:
        if result["left_out"] or result["failed"]:
            lines.append(f"| {result['name']} | | | | {result['left_out'] or 'FAILED'} |")
        for figure in result["figures"]:
            bound = "" if figure["limit"] is None else f"{'≤' if figure['sense'] == 'at most' else '≥'} {figure['limit']:g}"
            kept = {None: "", True: "kept", False: "**missed**"}[holds(figure)]
            lines.append(f"| {result['name']} | {figure['name']} | {shown(figure)} | {bound} | {kept} |")
    (out / "bench.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{out}/bench.md")


def shown(figure: dict[str, Any]) -> str:
    value = figure["value"]
    number = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{number} {figure['unit']}".strip()


def machine() -> str:
    import torch

    cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{platform.machine()}, {os.cpu_count()} processors, {', '.join(cards) or 'no GPU'}, {versions}, {load}"


if __name__ == "__main__":
    main()
