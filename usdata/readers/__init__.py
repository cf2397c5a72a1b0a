"""Readers: a file or folder of any known kind becomes one `Clip` of uint8 frames.

In: a path, and which backend may decode videos. Out: a `Clip`, opened and with its first frame known to decode.
Guarantees: the kind is decided by content, never by name; whatever cannot be read raises `ReadError` with the true reason.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from usdata.errors import ReadError, nearest
from usdata.readers.archives import extract, extract_beside, locate
from usdata.readers.base import AbsurdSizeError, Clip, ClipInfo, Frame, Region, frame_time
from usdata.readers.identify import ARCHIVE_KINDS, KNOWN_BUT_UNREAD, STILL_KINDS, VIDEO_KINDS, identify

__all__ = ["BACKENDS", "Clip", "ClipInfo", "Frame", "Region", "backends", "data_files", "frame_time", "identify", "open_clip"]

# In the order in which "auto" tries them.
BACKENDS = ("pyav", "opencv", "decord")


def open_clip(path: Path, *, backend: str = "auto", colour: bool = False, scratch: Path | None = None) -> Clip:
    """Open a video, a DICOM file, a MetaImage, NRRD, NIfTI or HDF5 stack, a still image, or a folder of images.

    Args:
        path: What to read. A still is a clip of one frame without time, a folder of images a clip without time; `folder/left_#.png` names
            the images there that differ in their last number alone. A path may lead into a zip or tar: `clips.zip/patient 1/a.dcm`.
        backend: Who decodes videos: "pyav", "opencv", "decord", or "auto" (the first of these three that can). Other kinds have one reader.
        colour: True for RGB frames (height, width, 3), False for gray ones (height, width).
        scratch: Where a file from an archive is unpacked while the clip is open; the system's folder for temporary files by default.

    Returns:
        The clip, open for one forward pass.

    Raises:
        ReadError: It cannot be read; the reason says why, in the decoder's own words where there are any.
    """
    path = Path(path)
    if backend != "auto" and backend not in BACKENDS:
        raise ReadError(path, f"there is no reader '{backend}'", nearest(backend, ("auto", *BACKENDS)))
    with _in_words(path):
        place = locate(path)
    if place is None:
        return _open(path, backend, colour)
    unpacked = Path(tempfile.mkdtemp(dir=scratch, prefix="usdata-"))
    try:
        archive, name = place
        file = extract(archive, name, unpacked)
        for companion in data_files(file) if file.is_file() else ():
            extract_beside(archive, str(PurePosixPath(name).parent / companion), unpacked)
        clip = _open(file, backend, colour)
    except ReadError as error:
        shutil.rmtree(unpacked, ignore_errors=True)
        # The folder for temporary files is this machine's own, and no manifest may show it.
        raise ReadError(path, error.reason.replace(f"{unpacked}/", ""), error.advice) from error
    except BaseException:
        shutil.rmtree(unpacked, ignore_errors=True)
        raise
    clip.path = path
    clip.owns(unpacked)
    return clip


def data_files(path: Path) -> tuple[str, ...]:
    """The names of the files beside it that a header file refers to (`.mhd` and its `.raw`); empty for a file that is whole by itself.

    Raises:
        ReadError: It refers to files elsewhere, or cannot be read.
    """
    with _in_words(path):
        kind = identify(path)
    if kind == "metaimage":
        from usdata.readers import metaimage

        return metaimage.data_files(path)
    if kind == "nrrd":
        from usdata.readers import nrrd

        return nrrd.data_files(path)
    return ()


def _open(path: Path, backend: str, colour: bool) -> Clip:
    with _in_words(path):
        kind = "sequence" if "#" in path.name and not path.exists() else identify(path)
    if kind in VIDEO_KINDS:
        return _open_video(path, kind, backend, colour)
    if kind in ("folder", "sequence") or kind in STILL_KINDS:
        from usdata.readers import stills

        if kind == "sequence":
            return stills.open_sequence(path, colour=colour)
        return stills.open_folder(path, colour=colour) if kind == "folder" else stills.open_still(path, kind, colour=colour)
    if kind == "dicom":
        from usdata.readers.dicom import open_dicom

        return open_dicom(path, colour=colour)
    if kind == "metaimage":
        from usdata.readers.metaimage import open_metaimage

        return open_metaimage(path, colour=colour)
    if kind == "nrrd":
        from usdata.readers.nrrd import open_nrrd

        return open_nrrd(path, colour=colour)
    if kind in ("nifti", "hdf5"):
        from usdata.readers import volumes

        return volumes.open_nifti(path, colour=colour) if kind == "nifti" else volumes.open_hdf5(path, colour=colour)
    raise _refusal(path, kind)


def _open_video(path: Path, kind: str, backend: str, colour: bool) -> Clip:
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


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """What the file system refuses, as a `ReadError`."""
    try:
        yield
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
        return ReadError(path, f"is {KNOWN_BUT_UNREAD[kind]}, which is not read", "convert it to mp4, avi or PNG frames first")
    if kind in ARCHIVE_KINDS:
        return ReadError(path, f"is {ARCHIVE_KINDS[kind]}: a folder of files, not a clip", f"name one of them: {path.name}/clip.mp4")
    if kind in ("gzip", "bzip2", "xz", "7z", "rar"):
        return ReadError(path, f"is compressed ({kind})", "unpack it first")
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
