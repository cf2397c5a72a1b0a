"""DICOM: single and multi-frame pictures, and videos inside DICOM, as one `Clip`.

In: a DICOM file, with or without its preamble. Out: 8-bit frames as the header says they are shown, with DICOM's own times, regions,
spacing and device. Guarantees: the file is read frame by frame; sizes, counts, lengths and offset tables are claims, checked against the
file before they are followed; a frame that is damaged or missing costs that frame, and the others keep their times; nothing of the header
but manufacturer and model leaves, in messages neither.

pydicom parses the header up to the pixels; where frames lie is found here, and in `dicom_fragments` for compressed ones, since a damaged
file must give the frames that are whole, one at a time. `dicom_codecs` decodes a frame, `dicom_pixels` makes a picture of it, `dicom_facts`
has what the header tells beside.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, UID_dictionary

from usdata.errors import ReadError
from usdata.readers.base import MAX_CONSECUTIVE_ERRORS, Clip, ClipInfo, Decoded, reading
from usdata.readers.dicom_codecs import decoder
from usdata.readers.dicom_facts import Timing, decimals, frame_times, places, text_of, value_of
from usdata.readers.dicom_fragments import UNDEFINED_LENGTH, JoinedFragments, PixelElement, find_fragments, first_fragments, read_at
from usdata.readers.dicom_pixels import Layout, Picture, layout_of, native_picture, renderer
from usdata.readers.identify import identify_bytes
from usdata.readers.packets import PacketDigest
from usdata.readers.video import PyavClip

_ADVICE = "get the file again, or leave it out"
_STANDARD = "1.2.840.10008."
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN, _DEFLATED = (f"{_STANDARD}1.2{end}" for end in ("", ".1", ".2", ".1.99"))
_DIRECTORY = f"{_STANDARD}1.3.10"
_CODECS = {_IMPLICIT: "native", _EXPLICIT: "native", _BIG_ENDIAN: "native", f"{_STANDARD}1.2.5": "rle"} | {
    f"{_STANDARD}1.2.4.{number}": codec
    for codec, numbers in {
        "jpeg": (50, 51),
        "jpeg-lossless": (57, 70),
        "jpeg-ls": (80, 81),
        "jpeg2000": (90, 91, 201, 202, 203),
        "jpegxl": (110, 111, 112),
        "video": ("100", "100.1", "101", "101.1", 102, "102.1", 103, "103.1", 104, "104.1", 105, "105.1", 106, "106.1", 107, 108),
    }.items()
    for number in numbers
}
# What a video reader calls a stream of such pictures.
_CODEC_OF_PACKETS = {"jpeg": "mjpeg"}
_JPEGXL_LOSSLESS = f"{_STANDARD}1.2.4.110"
# Elements above this size stay in the file until they are asked for; palettes and frame time vectors lie below.
_DEFERRED_BYTES = 1 << 20
# A codec that does not gain anything may lose a little; four times the native size is no frame.
_LARGEST_CODESTREAM = 4
_SMALLEST_LIMIT = 1 << 20
_VIDEO_KINDS = ("mp4", "mpegps", "mpegts", "mpegvideo")


def open_dicom(path: Path, *, colour: bool = False) -> Clip:
    """A clip of a DICOM file's frames; a single picture is a clip of one frame without time.

    Args:
        path: The file.
        colour: True for RGB frames, False for gray ones (Y where the source is in YBR).

    Raises:
        ReadError: It holds no picture, is of a kind that is not read, or none of its frames decodes.
    """
    file = path.open("rb")
    try:
        with _quietly(), reading(path, "cannot be read as DICOM"):
            dataset, syntax = _parsed(path, file)
            element = _pixel_element(path, file, dataset)
            codec = _codec_of(path, syntax)
            layout = layout_of(path, dataset)
            if codec == "video":
                return _open_video(path, file, dataset, layout, element, colour=colour)
            return DicomClip(path, file, dataset, layout, element, codec, syntax, colour=colour)
    except BaseException:
        file.close()
        raise


def header_of(path: Path) -> FileDataset:
    """The header alone, for whoever asks whose clip it is.

    Raises:
        ReadError: It cannot be parsed, or is of a kind that is not read.
    """
    with path.open("rb") as file, _quietly(), reading(path, "cannot be read as DICOM"):
        return _parsed(path, file)[0]


class DicomClip(Clip):
    """Frames of a DICOM file, each read and decoded when it is its turn."""

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        dataset: FileDataset,
        layout: Layout,
        element: PixelElement,
        codec: str,
        syntax: str,
        *,
        colour: bool,
    ) -> None:
        super().__init__(path)
        self._colour = colour
        self._file = file
        declared, notes = _declared_frames(path, dataset)
        if codec == "native":
            layout, chroma_notes = _full_chroma(layout, element, declared)
            notes += chroma_notes
            source = _native(path, file, dataset, layout, element, declared)
        else:
            source = _encapsulated(path, file, dataset, layout, element, declared, codec)
            self.packets = PacketDigest(_CODEC_OF_PACKETS.get(codec, codec), None)
        self._source = source
        rendered = replace(layout, photometric=_after_codec(layout.photometric, codec, syntax))
        render = renderer(path, dataset, rendered, codec)
        if codec == "native":
            swapped = not dataset.original_encoding[1]
            self._decoder: Callable[[bytes], Picture] = partial(native_picture, layout=layout, render=render, little_endian=not swapped)
        else:
            self._decoder = decoder(path, codec, rendered, render)
        if declared is not None and source.frames > declared:
            notes.append(f"the header declares {declared} frames and the file holds {source.frames}: all are read")
        self._timing = frame_times(path, dataset, source.frames if declared is None else declared)
        # The first frame is decoded now: only it tells that anything decodes at all.
        self._next = 0
        self._first: Decoded | None = self._first_decoded()
        self.info = _info(path, dataset, layout, codec, declared, self._timing, notes)

    def _first_decoded(self) -> Decoded:
        while self._next < min(self._source.frames, MAX_CONSECUTIVE_ERRORS):
            decoded = self._frame(self._next)
            self._next += 1
            if decoded is not None:
                return decoded
        reason = self.first_error or self._source.fault or "the pixel data are empty"
        raise ReadError(self.path, f"no frame of it decodes ({reason})", _ADVICE)

    def _frame(self, number: int) -> Decoded | None:
        try:
            with _quietly(), reading(self.path, f"frame {number}"):
                coded = self._source.read(number)
                if self.packets is not None:
                    self.packets.add(coded)
                picture = self._decoder(coded)
                if not self._colour:
                    return Decoded(self._timing.pts(number), picture.gray(), rgb=picture.rgb)
                pixels = picture.rgb() if picture.rgb is not None else cv2.cvtColor(picture.gray(), cv2.COLOR_GRAY2RGB)
                return Decoded(self._timing.pts(number), pixels)
        except ReadError as error:
            self._count_error(error.reason)
            return None

    def _decode(self) -> Iterator[Decoded]:
        if self._first is not None:
            yield self._first
            self._first = None
        failures = 0
        for number in range(self._next, self._source.frames):
            decoded = self._frame(number)
            failures = 0 if decoded is not None else failures + 1
            if decoded is not None:
                yield decoded
            elif failures >= MAX_CONSECUTIVE_ERRORS:
                return
        if self._source.fault is not None:
            self._count_error(self._source.fault)
            self.cut_short = True

    def close(self) -> None:
        self._first = None
        self._file.close()


class DicomVideoClip(Clip):
    """A video inside DICOM: the video reader's frames with DICOM's facts, and with DICOM's times where it has them."""

    def __init__(self, path: Path, inner: PyavClip, info: ClipInfo, timing: Timing, fault: str | None) -> None:
        super().__init__(path)
        self.info = info
        self._inner = inner
        self.packets = inner.packets
        self._timing = timing
        self._fault = fault

    def _decode(self) -> Iterator[Decoded]:
        for frame in self._inner.frames():
            self._copy_errors()
            pts = frame.pts if self.info.rate_source == "stream" else self._timing.pts(frame.index)
            yield Decoded(pts, frame.pixels, frame.damaged, rgb=None if frame.pixels.ndim == 3 else self._inner.rgb)
        self._copy_errors()
        if self._fault is not None:
            self._count_error(self._fault)
            self.cut_short = True

    def _copy_errors(self) -> None:
        self.decode_errors, self.first_error = self._inner.decode_errors, self._inner.first_error
        self.cut_short = self._inner.cut_short

    def close(self) -> None:
        self._inner.close()


class _Source(NamedTuple):
    """Where frames come from: how many there are, the bytes of each, and what is missing after them."""

    frames: int
    read: Callable[[int], bytes]
    fault: str | None


@contextmanager
def _quietly() -> Iterator[None]:
    """pydicom and Pillow warn of what is tolerated or reported here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _parsed(path: Path, file: BinaryIO) -> tuple[FileDataset, str]:
    """The header, with the file left at the pixel data, and the transfer syntax."""
    file.seek(128)
    has_preamble = file.read(4) == b"DICM"
    if has_preamble:
        meta = read_file_meta_info(path)
        _refuse_by_syntax(path, str(meta.get("TransferSyntaxUID", "")))
        if str(meta.get("MediaStorageSOPClassUID", "")) == _DIRECTORY:
            raise ReadError(path, "is a DICOMDIR, the table of contents of a disc, not a picture", "name the files that it lists")
    file.seek(0)
    dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, defer_size=_DEFERRED_BYTES)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "") or "")
    _refuse_by_syntax(path, syntax)
    if not has_preamble and "Rows" not in dataset:
        raise ReadError(path, "begins like DICOM, and holds no picture that can be found", _ADVICE)
    if not syntax:
        implicit, little = dataset.original_encoding
        syntax = _IMPLICIT if implicit else _EXPLICIT if little else _BIG_ENDIAN
    return dataset, syntax


def _refuse_by_syntax(path: Path, syntax: str) -> None:
    """Before pydicom would inflate it whole: a small file can hold gigabytes of zeros."""
    if syntax == _DEFLATED:
        raise ReadError(path, "is DICOM that is deflated as a whole, which is not read", "store it uncompressed first (dcmconv +te)")


def _codec_of(path: Path, syntax: str) -> str:
    codec = _CODECS.get(syntax)
    if codec is None:
        name = UID(syntax).name if syntax in UID_dictionary else "a transfer syntax that is none of the standard's"
        raise ReadError(path, f"its pixels are written in {name}, which is not read", "convert it to explicit little endian first")
    return codec


def _pixel_element(path: Path, file: BinaryIO, dataset: FileDataset) -> PixelElement:
    """The header of the element at which pydicom stopped.

    Raises:
        ReadError: It is not pixel data of whole numbers; the reason names what the file holds instead.
    """
    implicit, little = dataset.original_encoding
    order = "little" if little else "big"
    head = file.read(12)
    tag = [int.from_bytes(head[place : place + 2], order) for place in (0, 2)]  # type: ignore[arg-type]
    if tag in ([0x7FE0, 0x0008], [0x7FE0, 0x0009]):
        raise ReadError(path, "its pixels are floating-point numbers: measurements, not a picture", "convert it to a picture first")
    if tag != [0x7FE0, 0x0010] or len(head) < (8 if implicit else 12):
        if "Rows" in dataset:
            raise ReadError(path, "is DICOM that ends before its picture", _ADVICE)
        raise ReadError(path, f"is DICOM without a picture ({_what_it_is(path, dataset)})", "leave it out")
    length = int.from_bytes(head[4:8] if implicit else head[8:12], order)  # type: ignore[arg-type]
    return PixelElement(file.tell() - len(head) + (8 if implicit else 12), length, implicit or head[4:6] == b"OW")


def _what_it_is(path: Path, dataset: FileDataset) -> str:
    known = UID_dictionary.get(str(value_of(path, dataset, "SOPClassUID") or ""))
    return known[0] if known else "of an unknown kind, or cut short before its picture"


def _declared_frames(path: Path, dataset: FileDataset) -> tuple[int | None, list[str]]:
    """NumberOfFrames, 1 where there is none, None with a note where it is no count."""
    numbers = decimals(path, dataset, "NumberOfFrames")
    if not numbers:
        return 1, []
    number = numbers[0]
    if len(numbers) > 1 or number is None or number < 1 or number.denominator != 1:
        return None, ["NumberOfFrames is no count: the frames that are there are read"]
    return int(number), []


def _full_chroma(layout: Layout, element: PixelElement, declared: int | None) -> tuple[Layout, list[str]]:
    """Pixels that are said to share their colours (4:2:2), and by the length of the data do not."""
    full = layout.rows * layout.columns * 3
    if layout.photometric != "YBR_FULL_422" or element.length // full != (declared or 1):
        return layout, []
    return replace(layout, photometric="YBR_FULL"), ["the header says YBR_FULL_422, the length of the pixel data YBR_FULL"]


def _after_codec(photometric: str, codec: str, syntax: str) -> str:
    """What a codec's output is: JPEG XL gives RGB of a JPEG's YBR that it holds, the others give what they were given."""
    if codec == "jpegxl" and syntax != _JPEGXL_LOSSLESS and photometric.startswith("YBR"):
        return "RGB"
    return photometric


def _native(path: Path, file: BinaryIO, dataset: FileDataset, layout: Layout, element: PixelElement, declared: int | None) -> _Source:
    """Frames of one size, one after another; how many are whole is the file's to tell."""
    if element.length == UNDEFINED_LENGTH:
        raise ReadError(path, "its header says that its pixels are not compressed, and they are in packets", _ADVICE)
    if layout.photometric.endswith("_422") and (layout.columns % 2 or layout.bits_allocated != 8):
        raise ReadError(path, f"its {layout.photometric} pixels are {layout.columns} a row of {layout.bits_allocated} bits", _ADVICE)
    size = layout.frame_bytes
    there = min(element.length, os.fstat(file.fileno()).st_size - element.start)
    whole = there // size
    if whole == 0:
        raise ReadError(path, f"is cut short: {max(there, 0)} of the {size} bytes of its first frame are there", _ADVICE)
    swapped = element.in_words and layout.bits_allocated == 8 and not dataset.original_encoding[1]

    def read(number: int) -> bytes:
        # 8-bit pixels in big-endian words: each two bytes are exchanged, and an odd frame begins inside a word.
        odd = number * size % 2 if swapped else 0
        file.seek(element.start + number * size - odd)
        data = file.read(size + odd + (size + odd) % 2 if swapped else size)
        if swapped:
            data = np.frombuffer(data + b"\0" * (len(data) % 2), np.uint16).byteswap().tobytes()[odd : odd + size]
        return data

    fault = f"{whole} of the declared {declared} frames are there" if declared is not None and whole < declared else None
    return _Source(whole if declared is None else min(whole, declared), read, fault)


def _encapsulated(
    path: Path, file: BinaryIO, dataset: FileDataset, layout: Layout, element: PixelElement, declared: int | None, codec: str
) -> _Source:
    """Frames of one packet or several."""
    fragments = find_fragments(path, file, element)
    firsts = first_fragments(path, file, dataset, fragments, declared, codec)
    fault = fragments.fault
    count = len(firsts)
    if declared is not None and count >= declared and (fragments.whole or len(fragments.starts) == declared):
        fault = None  # every frame is there, and only the end mark is missing
    elif declared is not None and count < declared:
        fault = f"{count} of the declared {declared} frames are there" + (f": {fault}" if fault else "")
    limit = max(_LARGEST_CODESTREAM * layout.frame_bytes, _SMALLEST_LIMIT)
    bounds = [*firsts, len(fragments.starts)]

    def read(number: int) -> bytes:
        members = range(bounds[number], bounds[number + 1])
        size = sum(fragments.lengths[member] for member in members)
        if size > limit:
            raise ValueError(f"it claims {size} bytes, which no picture of this size takes")
        return b"".join(read_at(file, fragments.starts[member], fragments.lengths[member]) for member in members)

    return _Source(count, read, fault)


def _open_video(path: Path, file: BinaryIO, dataset: FileDataset, layout: Layout, element: PixelElement, *, colour: bool) -> Clip:
    fragments = find_fragments(path, file, element, partial_packet=True)
    if not fragments.starts:
        raise ReadError(path, f"is DICOM of a video without its data ({fragments.fault or 'there is none'})", _ADVICE)
    joined = io.BufferedReader(JoinedFragments(file, fragments), 1 << 16)
    head = joined.read(4096)
    joined.seek(0)
    # FFmpeg goes by content, and would follow a list of other files.
    if identify_bytes(head) not in _VIDEO_KINDS and b"\0\0\1" not in head[:4]:
        raise ReadError(path, "is DICOM of a video whose data are none", _ADVICE)
    inner = PyavClip(path, "dicom", colour=colour, source=joined)
    try:
        declared, notes = _declared_frames(path, dataset)
        # A video of an unknown number of frames has several.
        timing = frame_times(path, dataset, declared or 2)
        seen = replace(layout, rows=inner.info.height, columns=inner.info.width)
        info = _info(path, dataset, seen, inner.info.codec, declared, timing, notes)
        if seen != layout:
            notes = [
                *info.notes,
                f"the header says {layout.columns}×{layout.rows} pixels, the video has {seen.columns}×{seen.rows}: "
                "regions and spacing are not used",
            ]
            info = replace(info, regions=(), mm_per_pixel_x=None, mm_per_pixel_y=None, notes=tuple(notes))
        if timing.time_base is None:
            base, rate = inner.info.time_base, inner.info.declared_rate
            info = replace(info, time_base=base, declared_rate=rate, rate_source="stream" if base is not None else None)
        return DicomVideoClip(path, inner, info, timing, fragments.fault)
    except BaseException:
        inner.close()
        raise


def _info(path: Path, dataset: FileDataset, layout: Layout, codec: str, declared: int | None, timing: Timing, notes: list[str]) -> ClipInfo:
    found = places(path, dataset, layout.columns, layout.rows)
    return ClipInfo(
        container="dicom",
        codec=codec,
        pixel_format=f"{layout.photometric.lower()} {layout.bits_stored}",
        width=layout.columns,
        height=layout.rows,
        time_base=timing.time_base,
        frames_declared=declared,
        declared_rate=timing.rate,
        backend="dicom",
        rate_source=timing.source,
        mm_per_pixel_x=found.mm_per_pixel_x,
        mm_per_pixel_y=found.mm_per_pixel_y,
        regions=found.regions,
        manufacturer=text_of(path, dataset, "Manufacturer"),
        device=text_of(path, dataset, "ManufacturerModelName"),
        notes=(*notes, *found.notes, *timing.notes),
    )
