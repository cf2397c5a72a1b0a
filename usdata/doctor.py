"""What can be read on this machine, by which library, and what to install for the rest.

Each video backend is asked to decode a small clip, in a process of its own and under a time limit: a library that is installed and broken
shows here and not in the middle of a build.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from usdata.abilities import Ability, Examination
from usdata.engines import Failure, default_workers, run_local
from usdata.errors import ReadError
from usdata.privacy.pseudonyms import SECRET_FILE_VARIABLE, SECRET_VARIABLE
from usdata.readers import BACKENDS, backends, open_clip

TEST_FRAMES = 5
TRY_SECONDS = 60.0
# Codecs that ultrasound comes in, by the names of FFmpeg's decoders.
CODECS = (
    "h264",
    "hevc",
    "mpeg4",
    "mpeg2video",
    "mpeg1video",
    "mjpeg",
    "vp8",
    "vp9",
    "av1",
    "wmv2",
    "wmv3",
    "vc1",
    "ffv1",
    "gif",
    "rawvideo",
)
_VOLUMES = "pip install 'usdata-uscl[volumes]'"


def examine() -> Examination:
    """Look at this machine."""
    return Examination(_machine(), [*_video(), *_dicom(), *_others()], word="reads")


def _machine() -> dict[str, str]:
    secret = SECRET_VARIABLE in os.environ or SECRET_FILE_VARIABLE in os.environ
    limit = "time and memory" if sys.platform == "linux" else "time alone (memory limits need Linux)"
    return {
        "usdata": version("usdata-uscl"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(default_workers()),
        "a clip's limits": limit,
        "secret for patient ids": "set"
        if secret
        else f"not set ({SECRET_VARIABLE} or {SECRET_FILE_VARIABLE}); needed only for private ids",
    }


def _video() -> list[Ability]:
    """The backends, each tried on a clip; then the codecs of the first one."""
    said = backends()
    found = []
    with tempfile.TemporaryDirectory(prefix="usdata-doctor-") as folder:
        clip = _test_clip(Path(folder) / "test.avi")
        usable = [name for name in BACKENDS if not said[name].startswith(("missing", "refused"))]
        tried: dict[str, str | None] = {}
        tasks = [(name, clip) for name in usable] if clip is not None else []
        with closing(run_local(_try, tasks, workers=1, timeout_s=TRY_SECONDS, memory_mb=1024)) as done:
            for position, outcome in done:
                tried[tasks[position][0]] = outcome.reason if isinstance(outcome, Failure) else outcome
    for name in BACKENDS:
        by = f"{name} {said[name]}" if name in usable else name
        if name not in usable:
            state, _, advice = said[name].partition(": ")
            found.append(Ability("video", by, state, advice))
        elif tried.get(name) is not None:
            found.append(Ability("video", by, "broken", f"{tried[name]}; install it anew"))
        else:
            found.append(Ability("video", by))
    if (lacking := _lacking_codecs()) is not None:
        found.append(
            Ability(
                "video codecs", f"pyav: {len(CODECS) - len(lacking)} of {len(CODECS)}", "missing" if lacking else "ok", ", ".join(lacking)
            )
        )
    return found


def _test_clip(path: Path) -> Path | None:
    """A small MPEG-4 clip, which every build of FFmpeg writes and reads; None without PyAV."""
    if importlib.util.find_spec("av") is None:
        return None
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(TEST_FRAMES):
            pixels = np.full((48, 64, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _try(task: tuple[str, Path]) -> str | None:
    """What goes wrong when a backend reads the test clip; None when nothing does."""
    backend, path = task
    try:
        with open_clip(path, backend=backend) as clip:
            means = [float(frame.pixels.mean()) for frame in clip.frames()]
    except ReadError as error:
        return error.reason
    if len(means) != TEST_FRAMES or any(abs(mean - 40 * number) > 8 for number, mean in enumerate(means)):
        return f"it gives {len(means)} of {TEST_FRAMES} frames, or wrong ones, of a test clip"
    return None


def _lacking_codecs() -> list[str] | None:
    if importlib.util.find_spec("av") is None:
        return None
    from av.codec.codec import Codec, UnknownCodecError

    lacking = []
    for name in CODECS:
        try:
            Codec(name, "r")
        except UnknownCodecError:
            lacking.append(name)
    return lacking


def _dicom() -> list[Ability]:
    rows = [_installed("DICOM: native, RLE", "pydicom"), _installed("DICOM: JPEG baseline", "pillow")]
    coded: Mapping[str, str] = {
        "DICOM: JPEG lossless": "JPEG8",
        "DICOM: JPEG-LS": "JPEGLS",
        "DICOM: JPEG 2000": "JPEG2K",
        "DICOM: JPEG XL": "JPEGXL",
    }
    for what, codec in coded.items():
        row = _installed(what, "imagecodecs")
        if row.state == "ok" and not _has_codec(codec):
            row = Ability(what, row.by, "missing", "this build of imagecodecs lacks it: pip install --upgrade imagecodecs")
        rows.append(row)
    rows.append(Ability("DICOM: MPEG-2, H.264, HEVC", "pyav and pydicom", rows[0].state, rows[0].advice))
    return rows


def _has_codec(name: str) -> bool:
    import imagecodecs

    return bool(getattr(imagecodecs, name).available)


def _others() -> list[Ability]:
    return [
        Ability("MetaImage, NRRD", "usdata itself"),
        _installed("NIfTI", "nibabel", _VOLUMES),
        _installed("HDF5", "h5py", _VOLUMES),
        _installed("PNG, JPEG, TIFF, BMP, WebP", "opencv-python-headless"),
        Ability("zip, tar of all these", "Python itself"),
    ]


def _installed(what: str, package: str, advice: str | None = None) -> Ability:
    try:
        return Ability(what, f"{package} {version(package)}")
    except PackageNotFoundError:
        return Ability(what, package, "missing", advice or f"pip install {package}")


def print_examination(examined: Examination) -> None:
    """On a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for name, value in examined.machine.items():
        console.print(f"{name}: {value}", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("reads", "by", "state"):
        table.add_column(column)
    for ability in examined.abilities:
        state = ability.state if not ability.advice else f"{ability.state}: {ability.advice}"
        table.add_row(
            ability.what, ability.by, state, style=None if ability.state == "ok" else "yellow" if ability.state == "missing" else "red"
        )
    console.print(table)
    lacking = [ability for ability in examined.abilities if ability.state != "ok"]
    console.print(
        "everything known can be read here" if not lacking else f"{len(lacking)} of {len(examined.abilities)} are not to be had here"
    )
