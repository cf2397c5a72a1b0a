"""Where a store lies: the choice by size, what is free by real control-group files, and what reading into memory does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from uscl.tiers import RowsAhead, choose_tier, free_memory, place_store, read_into_memory
from usdata.errors import UserError

GB = 10**9


@pytest.mark.parametrize(
    ("size", "free_ram", "free_gpu", "tier"),
    [
        (1 * GB, 10 * GB, None, "ram"),
        (6 * GB, 10 * GB, None, "ram"),
        (6 * GB + 1, 10 * GB, None, "disk"),
        (4 * GB, 1 * GB, 10 * GB, "gpu"),
        (5 * GB, 10 * GB, 10 * GB, "ram"),
        (5 * GB, 5 * GB, 10 * GB, "disk"),
    ],
)
def test_auto_takes_the_nearest_tier_that_leaves_room(size: int, free_ram: int, free_gpu: int | None, tier: str) -> None:
    chosen = choose_tier("auto", size, free_ram=free_ram, free_gpu=free_gpu)
    assert chosen.tier == tier
    assert ("free on the GPU" if tier == "gpu" else "of free memory") in chosen.why


def test_what_is_asked_for_is_given_or_refused_in_one_line() -> None:
    free = {"free_ram": 2 * GB, "free_gpu": 3 * GB}
    assert [choose_tier(tier, 2 * GB, **free).tier for tier in ("disk", "ram", "gpu")] == ["disk", "ram", "gpu"]
    assert choose_tier("disk", 100 * GB, **free).why == "as configured"
    for tier, told in (("ram", r"takes 5\.0 GB and 2\.0 GB of memory are free"), ("gpu", r"takes 5\.0 GB and 3\.0 GB are free on the GPU")):
        with pytest.raises(UserError, match=rf"^store\.tier: is {tier}, but the store {told}; use --set store\.tier=auto"):
            choose_tier(tier, 5 * GB, **free)
    with pytest.raises(UserError, match="the run's device is the CPU"):
        place_store("gpu", 1, torch.device("cpu"))


def machine(folder: Path, groups: str) -> tuple[Path, Path]:
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "meminfo").write_text("MemTotal:       16000000 kB\nMemFree:  1000000 kB\nMemAvailable:    8000000 kB\n")
    (folder / "proc" / "self" / "cgroup").write_text(groups)
    return folder / "proc", folder / "cgroup"


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_what_is_free_without_control_groups(tmp_path: Path) -> None:
    assert free_memory(*machine(tmp_path, "0::/user.slice\n")) == 8000000 * 1024


def test_what_is_free_within_control_groups(tmp_path: Path) -> None:
    """Version 2: the nearest limit may stand in a group above; cached files count as free."""
    proc, root = machine(tmp_path, "0::/jobs/job7\n")
    stat = "anon 1000\ninactive_file 300\nactive_file 200"
    group(root / "jobs" / "job7", memory__max="max", memory__current=5000, memory__stat=stat)
    group(root / "jobs", memory__max=6000, memory__current=5500, memory__stat=stat)
    assert free_memory(proc, root) == 6000 - 5500 + 500
    group(root / "jobs" / "job7", memory__max=5000)
    assert free_memory(proc, root) == 500


def test_what_is_free_within_control_groups_of_version_1(tmp_path: Path) -> None:
    proc, root = machine(tmp_path, "9:cpu:/x\n4:memory:/jobs\n0::/\n")
    stat = "total_inactive_file 10\ntotal_active_file 20"
    group(root / "memory", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=1, memory__stat=stat)
    group(root / "memory" / "jobs", memory__limit_in_bytes=700, memory__usage_in_bytes=800, memory__stat=stat)
    assert free_memory(proc, root) == 0
    group(root / "memory" / "jobs", memory__usage_in_bytes=600)
    assert free_memory(proc, root) == 130


def test_this_machine_has_memory() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < free_memory() <= total


def resident_kb(path: Path) -> int:
    """How much of a file this process holds in memory, by the kernel's account of its mappings."""
    within, total = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            within = line.endswith(str(path))
        elif within and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_reading_into_memory_brings_every_page(tmp_path: Path) -> None:
    path = tmp_path / "store.npy"
    np.save(path, np.zeros((300, 100, 100), dtype=np.uint8))
    mapped = np.load(path, mmap_mode="r")
    read_into_memory(np.asarray(mapped))
    assert resident_kb(path) * 1024 >= mapped.nbytes


def test_rows_are_asked_for_from_any_file(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(bytes(1000))
    ask = RowsAhead(path, 100, 90)
    ask(np.array([[0, 3, 3], [9, 1, 0]]))
    assert ask._understood
