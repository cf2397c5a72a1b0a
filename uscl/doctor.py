"""What this machine can train with, what each extra gives, and what to install for the rest.

In comes the machine; out come facts about it and a row an ability. Nothing is written but a file that vanishes at once, where it is asked
whether runs can be written. torch is imported in the functions: one that is installed and broken is a row of the table.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from usdata.abilities import Ability, Examination

# Where processes share memory on Linux.
SHARED_MEMORY = Path("/dev/shm")
# Frames of US-4 at 224 pixels take 1.2 GB, a checkpoint of a resnet18 with its optimiser 0.15 GB.
LITTLE_SPACE_GB = 5.0
_COLUMNS = 80
# Packages of each extra, what they give, and the extra's name.
_EXTRAS = (
    (("timm",), "backbone=timm/NAME, --init-from imagenet", "timm"),
    (("onnx", "onnxruntime", "onnxscript"), "uscl export --format onnx", "onnx"),
    (("tensorboard",), "figures of a run in TensorBoard", "tensorboard"),
    (("ray",), "usdata build --engine ray", "ray"),
)


def examine() -> Examination:
    """Look at this machine; the working folder is where runs would go."""
    machine = {
        "uscl": _version("usdata-uscl") or "not installed",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    try:
        import torch

        torch.ones(2, 2) @ torch.ones(2, 2)
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is what is asked for here
        abilities = [_broken("torch", error)]
    else:
        machine |= {
            "torch": torch.__version__,
            "torchvision": _version("torchvision") or "not installed",
            "devices": ", ".join(_devices()),
            "CPU threads": _threads(),
        }
        abilities = [_tried("torchvision", _torchvision), *_computing()]
    return Examination(machine, [*abilities, *_extras(), *_places()])


def _devices() -> Iterator[str]:
    import torch

    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        yield f"cuda:{number} {facts.name}, {facts.total_memory / 1e9:.0f} GB"
    yield f"CPU ({torch.backends.cpu.get_cpu_capability()})"


def _threads() -> str:
    from uscl.run_folder import threads

    asked = os.environ.get("OMP_NUM_THREADS")
    return f"{threads()} ({f'OMP_NUM_THREADS={asked}' if asked else 'all cores that this process may use'})"


def _torchvision() -> str:
    from uscl.backbones import make_backbone

    make_backbone("resnet18", 32)
    return f"torchvision {_version('torchvision')}"


def _computing() -> Iterator[Ability]:
    """What a step may run on, in and as."""
    import torch

    if torch.cuda.is_available():
        yield Ability("training on a GPU", f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    elif torch.version.cuda is None:
        advice = f"this torch is a build for the CPU; for a GPU install a CUDA build of torch {torch.__version__.partition('+')[0]}"
        yield Ability("training on a GPU", "no CUDA", "missing", advice)
    else:
        yield Ability("training on a GPU", f"CUDA {torch.version.cuda}", "missing", "torch sees no GPU: look at nvidia-smi")
    yield _tried("precision=bfloat16", _bfloat16)
    yield _compiling()
    if torch.cuda.is_available():
        triton = _version("triton")
        advice = "pip install triton; without it the plain path is taken, which is slower"
        yield Ability("augment.path=fast", f"triton {triton}") if triton else Ability("augment.path=fast", "triton", "missing", advice)
    else:
        yield Ability("augment.path=fast", "uscl itself, on the CPU")
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_gloo_available():
        nccl = " and NCCL" if distributed.is_nccl_available() and torch.cuda.is_available() else ""
        yield Ability("several processes (torchrun)", f"gloo{nccl}")
    else:
        yield Ability("several processes (torchrun)", "gloo", "missing", "this torch was built without it: install another build")
    yield _tried("threads that prepare batches", _feeding)


def _bfloat16() -> str:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    pictures, weights = (torch.rand(shape, generator=generator).to(device) for shape in ((2, 3, 16, 16), (4, 3, 3, 3)))
    plain = torch.nn.functional.conv2d(pictures, weights)
    with torch.autocast(device, torch.bfloat16):
        rounded = torch.nn.functional.conv2d(pictures, weights).float()
    if not torch.allclose(plain, rounded, rtol=0.02, atol=0.02):
        raise ArithmeticError("a convolution in bfloat16 differs from the same in float32 by more than rounding")
    if device == "cuda":
        return "the GPU; precision=auto takes it" if torch.cuda.is_bf16_supported() else "the GPU, slowly: it emulates it"
    return "the CPU; precision=auto takes float32"


def _compiling() -> Ability:
    """Looked for and not tried: a first compilation takes half a minute."""
    import torch

    what = "compile=model, compile=step"
    if torch.cuda.is_available():
        triton = _version("triton")
        return Ability(what, f"triton {triton}") if triton else Ability(what, "triton", "missing", "pip install triton")
    compiler = next((name for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name and shutil.which(name)), None)
    if compiler is None:
        return Ability(what, "a C++ compiler", "missing", "install g++ or clang++; the default, compile=off, needs none")
    return Ability(what, f"{Path(compiler).name} is there (not tried)")


def _feeding() -> str:
    """Frames are read by threads of the process itself: no worker processes, and so no shared memory between them."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(abs, (-1, -2))) == [1, 2]
    return "start; no worker processes are needed"


def _extras() -> Iterator[Ability]:
    for packages, gives, extra in _EXTRAS:
        lacking = [name for name in packages if find_spec(name) is None]
        by = ", ".join(f"{name} {_version(name)}" for name in packages if name not in lacking)
        if lacking:
            yield Ability(gives, ", ".join(lacking), "missing", f"pip install 'usdata-uscl[{extra}]'")
        else:
            yield Ability(gives, by)


def _places() -> Iterator[Ability]:
    yield _place("runs, in the working folder", Path.cwd(), "free some, or give --out on another disk")
    from_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    advice = "free some, or name a folder with --set store.folder=DIR"
    yield _place("frame stores, if SET is read-only", next(each for each in (from_home, *from_home.parents) if each.exists()), advice)
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free / 1e9
        yield Ability("shared memory (NCCL's alone)", f"{free:.1f} GB free")


def _place(what: str, folder: Path, advice: str) -> Ability:
    free = shutil.disk_usage(folder).free / 1e9
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Ability(what, f"{free:.1f} GB free", "broken", f"cannot be written ({error.strerror}): {advice}")
    return Ability(what, f"{free:.1f} GB free", *(() if free >= LITTLE_SPACE_GB else ("little", advice)))


def _tried(what: str, attempt: Callable[[], str]) -> Ability:
    try:
        return Ability(what, attempt())
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is what is asked for here
        return _broken(what, error)


def _broken(what: str, error: Exception) -> Ability:
    said = " ".join(str(error).split())[:200] or "no reason given"
    return Ability(what, "", "broken", f"{type(error).__name__}: {said}; install torch and torchvision anew, together")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def print_examination(examined: Examination) -> None:
    """On standard output, at most 80 columns wide."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console.width = min(console.width, _COLUMNS) if sys.stdout.isatty() else _COLUMNS
    for name, value in examined.machine.items():
        console.print(f"{name}: {value}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("what", "by", "state"):
        table.add_column(column)
    for ability in examined.abilities:
        style = None if ability.state == "ok" else "red" if ability.state == "broken" else "yellow"
        table.add_row(ability.what, ability.by, ability.state, style=style)
    console.print(table)
    lacking = [ability for ability in examined.abilities if ability.state != "ok"]
    for ability in lacking:
        console.print(f"{ability.what}: {ability.advice}")
    console.print("what clips can be read here: usdata doctor")
