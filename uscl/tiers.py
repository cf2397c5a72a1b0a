"""Where the decoded frames lie while a run trains: on disk, in memory or on the GPU, by their size and what is free.

In come a size in bytes and a device; out comes a tier with the reason. Batches are the same in every tier: only their speed differs.

- disk: rows are read through the memory map as they are needed; each batch is asked of the disk as a whole before it is copied.
- ram: the whole store is read once through the same map, so that it stands in the system's page cache. That is one copy for all processes
  of the machine (ranks, other runs), which ends with no process and which the system may take back when memory runs short.
- gpu: one copy on the device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from usdata.errors import UserError

# Of what is free, how much the frames may take unless they are told to; the rest is for the network and for other programs.
SHARE_OF_RAM = 0.6
SHARE_OF_GPU = 0.4
_PAGE_BYTES = 4096
_TOUCHED_AT_ONCE = 1 << 26
# What version 1 of control groups says where there is no limit: the largest number of whole pages.
_NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class Placement:
    """Where a store lies.

    Attributes:
        tier: disk, ram or gpu.
        why: The reason, for people.
    """

    tier: str
    why: str


def choose_tier(requested: str, store_bytes: int, *, free_ram: int, free_gpu: int | None) -> Placement:
    """The tier for a store.

    Args:
        requested: auto, disk, ram or gpu.
        store_bytes: Size of the decoded frames.
        free_ram: Bytes of memory that this process may still take.
        free_gpu: Bytes free on the run's GPU; None where it runs on the CPU.

    Raises:
        UserError: The tier asked for is impossible here.
    """
    need = f"the store takes {_told(store_bytes)}"
    if requested == "gpu":
        if free_gpu is None:
            raise UserError("store.tier", "is gpu, and the run's device is the CPU", "use --set store.tier=auto")
        if store_bytes > free_gpu:
            reason = f"is gpu, but {need} and {_told(free_gpu)} are free on the GPU"
            raise UserError("store.tier", reason, "use --set store.tier=auto or a smaller store.size")
        return Placement("gpu", "as configured")
    if requested == "ram":
        if store_bytes > free_ram:
            reason = f"is ram, but {need} and {_told(free_ram)} of memory are free"
            raise UserError("store.tier", reason, "use --set store.tier=auto or a smaller store.size")
        return Placement("ram", "as configured")
    if requested == "disk":
        return Placement("disk", "as configured")
    if free_gpu is not None and store_bytes <= SHARE_OF_GPU * free_gpu:
        return Placement("gpu", f"within {SHARE_OF_GPU:.0%} of the {_told(free_gpu)} free on the GPU")
    if store_bytes <= SHARE_OF_RAM * free_ram:
        return Placement("ram", f"within {SHARE_OF_RAM:.0%} of the {_told(free_ram)} of free memory")
    return Placement("disk", f"over {SHARE_OF_RAM:.0%} of the {_told(free_ram)} of free memory")


def place_store(requested: str, store_bytes: int, device: torch.device) -> Placement:
    """The tier for a store on this machine, with what is free now; errors as for `choose_tier`."""
    free_gpu = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return choose_tier(requested, store_bytes, free_ram=free_memory(), free_gpu=free_gpu)


def free_memory(proc: Path = Path("/proc"), control_groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may still take: what the system calls available, and the room in each of its control groups.

    Cached files count as free in both, since the system gives them up when memory is asked for.

    Args:
        proc: Where the process file system is mounted.
        control_groups: Where control groups of version 1 or 2 are mounted; a container sees its own as the root.
    """
    lines = (line.split() for line in (proc / "meminfo").read_text(encoding="ascii").splitlines())
    available = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    return min([available, *_rooms(proc, control_groups)])


def _rooms(proc: Path, control_groups: Path) -> Iterator[int]:
    """Bytes that are left in every control group with a limit that this process stands in."""
    for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            root, names = control_groups, ("memory.max", "memory.current", ("inactive_file", "active_file"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
            root = control_groups / "memory"
        else:
            continue
        group = root / place.lstrip("/")
        for folder in [group, *group.parents]:
            if folder.is_relative_to(root) and (folder / names[0]).is_file() and (folder / names[1]).is_file():
                limit = (folder / names[0]).read_text(encoding="ascii").strip()
                if limit != "max" and int(limit) < _NO_LIMIT:
                    used = int((folder / names[1]).read_text(encoding="ascii"))
                    counted = dict(each.split() for each in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
                    yield max(0, int(limit) - used + sum(int(counted.get(name, 0)) for name in names[2]))


def read_into_memory(pixels: np.ndarray) -> None:
    """Read all of a memory-mapped array once, so that it stands in the page cache and in this process' page table."""
    flat = pixels.reshape(-1)
    for start in range(0, len(flat), _TOUCHED_AT_ONCE):
        flat[start : start + _TOUCHED_AT_ONCE : _PAGE_BYTES].max(initial=0)


class RowsAhead:
    """Asks the disk for the rows of a batch, all at once and without waiting, before they are copied one by one.

    Args:
        path: The store's file.
        offset: Where its first row begins.
        row_bytes: Size of a row.
    """

    def __init__(self, path: Path, offset: int, row_bytes: int) -> None:
        self._path, self._offset, self._row_bytes = path, offset, row_bytes
        self._understood = hasattr(os, "posix_fadvise")

    def __call__(self, rows: np.ndarray) -> None:
        """Ask for rows (any shape)."""
        if not self._understood:
            return
        with self._path.open("rb") as file:
            try:
                for row in np.unique(rows).tolist():
                    os.posix_fadvise(file.fileno(), self._offset + row * self._row_bytes, self._row_bytes, os.POSIX_FADV_WILLNEED)
            except OSError:
                # It is advice: from a file system that does not take it the rows are read all the same, only later.
                self._understood = False


def _told(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
