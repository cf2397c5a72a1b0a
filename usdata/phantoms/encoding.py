"""Encoding pictures to video files with equal bytes for equal pictures: one thread, bit-exact, no time of creation."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.video.stream import VideoStream
from numpy.typing import NDArray

from usdata.files import atomic

# macroblock trees are off because with them x264 gives now and then other bytes for the same frames, even on one thread
_ENCODERS = {
    "mp4": ("libx264", "mp4", "yuv420p", {"crf": "19", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}),
    "avi": ("mjpeg", "avi", "yuvj420p", {"qmin": "3", "qmax": "3", "threads": "1"}),
    "mpeg": ("mpeg2video", "mpeg", "yuv420p", {"b": "6000000", "qmin": "2", "qmax": "4", "threads": "1"}),
    "gif": ("gif", "gif", "gray", {"threads": "1"}),
}


def write_clip(path: Path, pictures: NDArray[np.uint8], fps: int, **options: str) -> None:
    """Encode frames, (frames, height, width, RGB) or gray (frames, height, width), as the suffix says.

    The index of an mp4 stands at its end, as most devices write it. `options` overrides the encoder's.
    """
    codec, container, pixels, defaults = _ENCODERS[path.suffix[1:]]
    if codec == "libx264" and not _has_encoder(codec):
        codec, defaults = "mpeg4", {"qmin": "3", "qmax": "3", "threads": "1"}
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream(codec, rate=fps, options={**defaults, **options})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = pictures.shape[1], pictures.shape[2], pixels
        stream.codec_context.flags |= Flags.bitexact
        stream.codec_context.time_base = Fraction(1, fps)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="gray" if picture.ndim == 2 else "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with atomic(path, durable=False) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _has_encoder(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
