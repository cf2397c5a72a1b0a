"""Decoders of single compressed DICOM frames: RLE, JPEG, lossless JPEG, JPEG-LS, JPEG 2000, JPEG XL.

In: the bytes of one frame, and how the header says that it is stored. Out: its samples, handed to what makes a picture of them.
Guarantees: a codestream's own size is compared with the header's before anything is decoded, so that no frame takes more memory than the
header said and `check_size` allowed.

Frames are not decoded through pydicom's decoders: those have no JPEG XL, need two plugins more for JPEG-LS and lossless JPEG, one of them
under the GPL, and always make colour where gray is asked for. 8-bit JPEG is Pillow's, as in pydicom; RLE is an arrangement of bytes; every
other codec is imagecodecs'.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from usdata.errors import ReadError
from usdata.readers.dicom_pixels import YBR, Decoder, Layout, Picture, Render, coloured_picture, high_bits_dropped

# The first bytes of a codestream; a fragment that begins with them begins a frame.
STARTS: dict[str, tuple[bytes, ...]] = {
    "jpeg": (b"\xff\xd8\xff",),
    "jpeg-lossless": (b"\xff\xd8\xff",),
    "jpeg-ls": (b"\xff\xd8\xff",),
    "jpeg2000": (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP"),
    "jpegxl": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
}


def decoder(path: Path, codec: str, layout: Layout, render: Render) -> Decoder:
    """What decodes the bytes of one encapsulated frame.

    Raises:
        ReadError: This codec needs imagecodecs, and it is not installed.
    """
    if codec == "rle":
        return lambda data: render(rle_samples(data, layout))
    if codec == "jpeg":
        return partial(_jpeg_picture, path=path, layout=layout, render=render)
    _imagecodecs(path, codec)
    return lambda data: render(_shaped(_decoded(path, codec, data, layout), layout))


def _imagecodecs(path: Path, codec: str) -> ModuleType:
    try:
        return importlib.import_module("imagecodecs")
    except ImportError as error:
        raise ReadError(path, f"its pixels are {codec}, which needs imagecodecs", "pip install imagecodecs") from error


def _decoded(path: Path, codec: str, data: bytes, layout: Layout) -> np.ndarray:
    """One frame by imagecodecs, on one thread, once its own header agrees with DICOM's."""
    codecs = _imagecodecs(path, codec)
    if codec == "jpeg2000":
        _agree(*_jpeg2000_size(data), layout)
        return codecs.jpeg2k_decode(data, numthreads=1)
    if codec == "jpegxl":
        _agree(*_jpegxl_size(data), layout.samples, layout)
        return codecs.jpegxl_decode(data, numthreads=1)
    header = _jpeg_header(data)
    _agree(header.columns, header.rows, len(header.components), layout)
    # libjpeg makes up what is missing, and CharLS takes 3 s to notice it (imagecodecs 2026.3).
    if b"\xff\xd9" not in data[-1024:]:
        raise ValueError("the JPEG breaks off")
    if codec == "jpeg-ls":
        return codecs.jpegls_decode(data)
    # Without both spaces named, libjpeg would convert colours by a guess of its own.
    return codecs.jpeg8_decode(data, **({"colorspace": "RGB", "outcolorspace": "RGB"} if layout.samples == 3 else {}))


def _shaped(samples: np.ndarray, layout: Layout) -> np.ndarray:
    expected = (layout.rows, layout.columns) + ((3,) if layout.samples == 3 else ())
    if samples.shape != expected:
        raise ValueError(f"it decodes to {'×'.join(map(str, samples.shape))} values, the header says {'×'.join(map(str, expected))}")
    if samples.dtype.kind not in "ui" or samples.dtype.itemsize > layout.bits_allocated // 8:
        raise ValueError(f"it decodes to {samples.dtype}, the header says {layout.bits_allocated} bits")
    if samples.dtype.kind == "u" and not layout.signed and layout.bits_stored < 8 * samples.dtype.itemsize:
        return np.minimum(samples, (1 << layout.bits_stored) - 1)
    return samples


def _agree(width: int, height: int, components: int, layout: Layout) -> None:
    if (width, height, components) != (layout.columns, layout.rows, layout.samples):
        raise ValueError(
            f"its codestream has {width}×{height} pixels of {components} values, "
            f"the header says {layout.columns}×{layout.rows} of {layout.samples}"
        )


class JpegHeader(NamedTuple):
    """What a JPEG or JPEG-LS stream says before its first scan."""

    precision: int
    rows: int
    columns: int
    components: tuple[int, ...]
    is_jfif: bool
    adobe_transform: int | None


def _jpeg_header(data: bytes) -> JpegHeader:
    """The frame header of a JPEG or JPEG-LS stream.

    Raises:
        ValueError: There is none before the first scan.
    """
    frame: bytes | None = None
    is_jfif, adobe = False, None
    for marker, body in _jpeg_segments(data):
        if marker == 0xE0 and body.startswith(b"JFIF\0"):
            is_jfif = True
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        elif frame is None and ((0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7):
            frame = body
    if frame is None or len(frame) < 6 or len(frame) < 6 + 3 * frame[5]:
        raise ValueError("the JPEG has no frame header before its first scan")
    rows, columns = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    return JpegHeader(frame[0], rows, columns, tuple(frame[6 : 6 + 3 * frame[5] : 3]), is_jfif, adobe)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each marker and its content, up to the first scan."""
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("the JPEG does not begin as one")
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:
            position += 1
            continue
        end = position + 2 + max(int.from_bytes(data[position + 2 : position + 4], "big"), 2)
        yield data[position + 1], data[position + 4 : end]
        position = end


def _jpeg_picture(data: bytes, *, path: Path, layout: Layout, render: Render) -> Picture:
    """A JPEG of 8 bits by Pillow, which gives the luma alone at half the cost; one of 12 by imagecodecs."""
    header = _jpeg_header(data)
    _agree(header.columns, header.rows, len(header.components), layout)
    if header.precision != 8:
        _imagecodecs(path, "12-bit JPEG")
        return render(_shaped(_decoded(path, "jpeg", data, layout), layout))
    if layout.samples == 1:
        return render(_pillow(data, "L"))
    is_ybr, libjpeg_thinks_ybr = _stored_as_ybr(header, layout), _taken_for_ybr(header)
    if is_ybr == libjpeg_thinks_ybr:
        return Picture(partial(_pillow, data, "L"), partial(_pillow, data, "RGB"))
    # Asked for what it takes the data to be, libjpeg converts nothing.
    raw = _pillow(data, "YCbCr" if libjpeg_thinks_ybr else "RGB")
    return coloured_picture(raw, layout=layout, is_ybr=is_ybr)


def _stored_as_ybr(header: JpegHeader, layout: Layout) -> bool:
    """How the components were coded: what the stream says for certain counts, then what DICOM says."""
    if bytes(header.components) in (b"RGB", b"rgb"):
        return False
    return header.is_jfif or header.adobe_transform == 1 or layout.photometric in YBR


def _taken_for_ybr(header: JpegHeader) -> bool:
    """What libjpeg's own rule takes three components for (jdapimin.c, default_decompress_parms, as its documentation tells)."""
    if header.is_jfif:
        return True
    if header.adobe_transform is not None:
        return header.adobe_transform != 0
    return bytes(header.components) != b"RGB"


def _pillow(data: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.mode != mode:
            image.draft(mode, image.size)
        if image.mode != mode:
            raise ValueError(f"the JPEG holds {image.mode}, not {mode}")
        return np.array(image)


def _jpeg2000_size(data: bytes) -> tuple[int, int, int]:
    """Width, height and components by the SIZ segment of a codestream, bare or in a JP2 file."""
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    segment = data[start + 6 : start + 42]
    if start < 0 or len(segment) < 36:
        raise ValueError("the JPEG 2000 codestream has no header")
    right, lower, left, upper = (int.from_bytes(segment[place : place + 4], "big") for place in (2, 6, 10, 14))
    return right - left, lower - upper, int.from_bytes(segment[34:36], "big")


# ISO/IEC 18181-1: how many bits each of the four forms of a size holds, and the shapes that need no width.
_JPEGXL_BITS = (9, 13, 18, 30)
_JPEGXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _jpegxl_size(data: bytes) -> tuple[int, int]:
    """Width and height by the SizeHeader of a JPEG XL codestream, bare or in its container."""
    start = 0 if data.startswith(b"\xff\x0a") else _jpegxl_codestream(data)
    if start < 0 or len(data) < start + 14:
        raise ValueError("the JPEG XL codestream has no header")
    bits = int.from_bytes(data[start + 2 : start + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    in_eights = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if in_eights else take(_JPEGXL_BITS[take(2)]) + 1

    height = side()
    ratio = take(3)
    if ratio == 0:
        return side(), height
    numerator, denominator = _JPEGXL_RATIOS[ratio - 1]
    return height * numerator // denominator, height


def _jpegxl_codestream(data: bytes) -> int:
    """Where the codestream begins in a container's boxes; -1 where it holds none."""
    position = 0
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind in (b"jxlc", b"jxlp"):
            start = position + (16 if length == 1 else 8) + (4 if kind == b"jxlp" else 0)
            return start if data.startswith(b"\xff\x0a", start) else -1
        if length < 8:
            return -1
        position += length
    return -1


def rle_samples(data: bytes, layout: Layout) -> np.ndarray:
    """One RLE frame (PS3.5 G): a segment of PackBits for each byte of each sample, the high bytes first.

    Raises:
        ValueError: A segment is missing or too short.
    """
    width = layout.bits_allocated // 8
    pixels = layout.rows * layout.columns
    count = int.from_bytes(data[:4], "little")
    if len(data) < 64 or count != layout.samples * width:
        raise ValueError(f"its RLE header tells of {count} segments, the pixels need {layout.samples * width}")
    starts = [int.from_bytes(data[4 * place : 4 * place + 4], "little") for place in range(1, count + 1)]
    if any(start < 64 or start > len(data) for start in starts):
        raise ValueError("its RLE segments lie outside it")
    ends = [*starts[1:], len(data)]
    segments = [_unpacked(data[start:end], pixels) for start, end in zip(starts, ends, strict=True)]
    if width == 1:
        planes = segments
    else:
        planes = [(high.astype(np.uint16) << 8) | low for high, low in zip(segments[::2], segments[1::2], strict=True)]
    planes = [high_bits_dropped(plane.reshape(layout.rows, layout.columns), layout) for plane in planes]
    return planes[0] if layout.samples == 1 else np.stack(planes, axis=-1)


def _unpacked(packed: bytes, size: int) -> np.ndarray:
    out = bytearray()
    position = 0
    while len(out) < size and position < len(packed):
        code = packed[position]
        if code < 128:
            out += packed[position + 1 : position + 2 + code]
            position += 2 + code
        elif code > 128:
            out += packed[position + 1 : position + 2] * (257 - code)
            position += 2
        else:
            position += 1
    if len(out) < size:
        raise ValueError(f"an RLE segment breaks off after {len(out)} of {size} values")
    return np.frombuffer(out, np.uint8)[:size]
