"""Readers: a file or folder of any known kind becomes one `Clip` of uint8 frames.

In: a path, and which backend may decode videos. Out: a `Clip`, opened and with its first frame known to decode.
Guarantees: the kind is decided by content, never by name; whatever cannot be read raises `ReadError` with the true reason.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from usdata.errors import ReadError, nearest
from usdata.readers.base import AbsurdSizeError, Clip, ClipInfo, Frame, frame_time
from usdata.readers.identify import ARCHIVE_KINDS, KNOWN_BUT_UNREAD, STILL_KINDS, VIDEO_KINDS, identify

__all__ = ["BACKENDS", "Clip", "ClipInfo", "Frame", "backends", "frame_time", "identify", "open_clip"]

# In the order in which "auto" tries them.
BACKENDS = ("pyav", "opencv", "decord")


def open_clip(path: Path, *, backend: str = "auto", colour: bool = False) -> Clip:
    """Open a video, a still image, or a folder of images.

    Args:
        path: What to read. A still is a clip of one frame without time, a folder of images a clip without time.
        backend: Who decodes videos: "pyav", "opencv", "decord", or "auto" (the first of these three that can). Stills have one reader.
        colour: True for RGB frames (height, width, 3), False for gray ones (height, width).

    Returns:
        The clip, open for one forward pass.

    Raises:
        ReadError: It cannot be read; the reason says why, in the decoder's own words where there are any.
    """
    path = Path(path)
    if backend != "auto" and backend not in BACKENDS:
        raise ReadError(path, f"there is no reader '{backend}'", nearest(backend, ("auto", *BACKENDS)))
    kind = _identified(path)
    if kind == "folder":
        from usdata.readers.stills import open_folder

        return open_folder(path, colour=colour)
    if kind in STILL_KINDS:
        from usdata.readers.stills import open_still

        return open_still(path, kind, colour=colour)
    if kind not in VIDEO_KINDS:
        raise _refusal(path, kind)
    if backend != "auto":
        return _OPENERS[backend](path, kind, colour)
    first: ReadError | None = None
    for name in BACKENDS:
        try:
            return _OPENERS[name](path, kind, colour)
        except AbsurdSizeError:
            raise
        except ReadError as error:
            first = first or error
    assert first is not None
    raise first


def backends() -> dict[str, str]:
    """Each video backend with its version, or with the reason why it cannot be used here."""
    return {
        "pyav": _version("av") or "missing: pip install av",
        "opencv": _opencv_version(),
        "decord": _version("decord") or "missing: its wheels exist for x86-64 Linux and Windows only (pip install decord)",
    }


def _identified(path: Path) -> str:
    try:
        return identify(path)
    except FileNotFoundError:
        raise ReadError(path, "does not exist", "check the path") from None
    except OSError as error:
        raise ReadError(path, f"cannot be read: {error.strerror or error}", "check the permissions and the disk") from error


def _refusal(path: Path, kind: str) -> ReadError:
    if kind == "empty":
        return ReadError(path, "is empty (0 bytes)", "get the file again")
    if kind == "text":
        return ReadError(path, "is text, not a video or an image", "get the file again, or leave it out")
    if kind in KNOWN_BUT_UNREAD:
        return ReadError(
            path, f"is {KNOWN_BUT_UNREAD[kind]}, which this version does not read yet", "convert it to mp4, avi or PNG frames first"
        )
    if kind in ARCHIVE_KINDS:
        return ReadError(path, f"is {ARCHIVE_KINDS[kind]}, not a video or an image", "unpack it first")
    if kind == "pdf":
        return ReadError(path, "is a PDF document, not a video or an image", "leave it out")
    return ReadError(
        path,
        "is of an unknown kind: its first bytes are those of no video or image format known here",
        "get the file again, or leave it out",
    )


def _open_pyav(path: Path, kind: str, colour: bool) -> Clip:
    from usdata.readers.video import PyavClip

    return PyavClip(path, kind, colour=colour)


def _open_opencv(path: Path, kind: str, colour: bool) -> Clip:
    from usdata.readers.opencv_video import OpencvClip

    return OpencvClip(path, kind, colour=colour)


def _open_decord(path: Path, kind: str, colour: bool) -> Clip:
    if importlib.util.find_spec("decord") is None:
        raise ReadError(path, "decord is not installed here", "use another backend (read.backend=pyav)")
    from usdata.readers.decord_video import DecordClip

    return DecordClip(path, kind, colour=colour)


_OPENERS: dict[str, Callable[[Path, str, bool], Clip]] = {"pyav": _open_pyav, "opencv": _open_opencv, "decord": _open_decord}


def _version(module: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    return str(importlib.import_module(module).__version__)


def _opencv_version() -> str:
    version = _version("cv2")
    if version is None:
        return "missing: pip install 'opencv-python-headless<4.13'"
    from usdata.readers.opencv_video import why_refused

    return why_refused(version) or version
