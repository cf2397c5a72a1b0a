"""Damaged and hostile inputs of every format, made by a seed, and what a build makes of them.

    python -m tests.usdata.damaged_inputs --count 2400 --keep FOLDER

makes the inputs under FOLDER/raw, builds a data set of them and prints what became of them: every input accounted for, the build alive, no
clip beyond its limits of time and memory.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import re
import resource
import struct
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.usdata.clips import speckle_frames
from tests.usdata.readers.generated import X264_B, encode

COUNT, HEIGHT, WIDTH = 12, 48, 64
# No random identifiers, no dates; x264's rate control by macroblock trees differs from run to run.
REPEATABLE = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1")
X264 = (*X264_B, "-x264-params", "mbtree=0")
VIDEOS: dict[str, tuple[str, ...]] = {
    "h264.mp4": X264,
    "h264_faststart.mov": (*X264, "-movflags", "+faststart"),
    "h264.mkv": X264,
    "h264.ts": X264,
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "2"),
    "raw.avi": ("-c:v", "rawvideo", "-pix_fmt", "bgr24"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "2", "-f", "vob"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-b:v", "1M", "-cpu-used", "8", "-deadline", "realtime", "-pix_fmt", "yuv420p"),
    "ffv1.mkv": ("-c:v", "ffv1", "-pix_fmt", "gray"),
    "wmv2.wmv": ("-c:v", "wmv2", "-q:v", "2"),
    "flv.flv": ("-c:v", "flv1", "-q:v", "2"),
    "clip.gif": (),
}
STILLS = (".png", ".jpg", ".tiff", ".bmp", ".webp")
HOSTILE_NUMBERS = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1_000_000)


def intact_files(folder: Path) -> dict[str, bytes]:
    """One small sound file of every format, by name."""
    frames = np.stack(speckle_frames(COUNT, height=HEIGHT, width=WIDTH))
    files: dict[str, bytes] = {}
    for name, options in VIDEOS.items():
        files[name] = encode(folder / name, frames[..., None].repeat(3, axis=3), *options, *REPEATABLE).read_bytes()
    for suffix in STILLS:
        files[f"still{suffix}"] = cv2.imencode(suffix, frames[0])[1].tobytes()
    files |= _dicom_files(frames)
    files |= _volume_files(frames, folder)
    png = files["still.png"]
    files["clips.zip"] = zipped([("a/h264.mp4", files["h264.mp4"]), ("b.png", png), ("c.dcm", files["rle.dcm"])])
    files["clips.tar"] = tarred([("a/h264.mp4", files["h264.mp4"]), ("b.png", png)])
    files["clips.tgz"] = gzip.compress(tarred([("a/mpeg4.avi", files["mpeg4.avi"]), ("b.png", png)]), mtime=0)
    return files


def _dicom_files(frames: np.ndarray) -> dict[str, bytes]:
    import imagecodecs
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, ExplicitVRLittleEndian, HTJ2KLossless, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

    def made(syntax: str, pixels: bytes, *, encapsulated: bool) -> bytes:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = UID(syntax)
        meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.3.1")
        meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
        data = Dataset()
        data.file_meta = meta
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.Rows, data.Columns, data.NumberOfFrames = HEIGHT, WIDTH, len(frames)
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        data.FrameTime, data.FrameIncrementPointer = "40", 0x00181063
        data.PixelData = pixels
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = encapsulated
        buffer = io.BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()

    def fragments(coded: Callable[[np.ndarray], bytes]) -> bytes:
        return encapsulate([coded(frame) for frame in frames])

    from pydicom.pixels.encoders import RLELosslessEncoder

    described = {"rows": HEIGHT, "columns": WIDTH, "samples_per_pixel": 1, "photometric_interpretation": "MONOCHROME2", "bits_allocated": 8}
    described |= {"bits_stored": 8, "pixel_representation": 0, "number_of_frames": 1}
    return {
        "native.dcm": made(ExplicitVRLittleEndian, frames.tobytes(), encapsulated=False),
        "rle.dcm": made(RLELossless, fragments(lambda frame: RLELosslessEncoder.encode(frame, **described)), encapsulated=True),
        "jpeg.dcm": made(JPEGBaseline8Bit, fragments(lambda frame: cv2.imencode(".jpg", frame)[1].tobytes()), encapsulated=True),
        "jpegls.dcm": made(JPEGLSLossless, fragments(lambda frame: bytes(imagecodecs.jpegls_encode(frame))), encapsulated=True),
        "jpeg2000.dcm": made(
            JPEG2000Lossless, fragments(lambda frame: bytes(imagecodecs.jpeg2k_encode(frame, codecformat="j2k"))), encapsulated=True
        ),
        # pydicom writes no syntax that it does not know, so that of JPEG XL takes the place of another of equal length.
        "jpegxl.dcm": made(HTJ2KLossless, fragments(lambda frame: bytes(imagecodecs.jpegxl_encode(frame))), encapsulated=True).replace(
            HTJ2KLossless.encode(), b"1.2.840.10008.1.2.4.110"
        ),
    }


def _volume_files(frames: np.ndarray, folder: Path) -> dict[str, bytes]:
    import h5py
    import nibabel

    head = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = {WIDTH} {HEIGHT} {COUNT}\nElementType = MET_UCHAR\n"
    stamps = "".join(f"Seq_Frame{n:04}_Timestamp = {n * 0.04:.2f}\nSeq_Frame{n:04}_ImageStatus = OK\n" for n in range(COUNT))
    packed = zlib.compress(frames.tobytes())
    mha = f"{head}CompressedData = True\nCompressedDataSize = {len(packed)}\n{stamps}ElementDataFile = LOCAL\n".encode() + packed
    mhd = f"{head}{stamps}ElementDataFile = LOCAL\n".encode() + frames.tobytes()
    sizes = f"type: uint8\ndimension: 3\nsizes: {WIDTH} {HEIGHT} {COUNT}\n"
    nrrd = f"NRRD0004\n{sizes}encoding: gzip\nkinds: domain domain list\n\n".encode() + gzip.compress(frames.tobytes(), mtime=0)
    raw_nrrd = f"NRRD0004\n{sizes}encoding: raw\n\n".encode() + frames.tobytes()
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(frames.transpose(2, 1, 0)), np.eye(4)), folder / "stack.nii")
    with h5py.File(folder / "stack.h5", "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, HEIGHT, WIDTH), compression="gzip")
    nifti = (folder / "stack.nii").read_bytes()
    return {
        "packed.igs.mha": mha,
        "plain.mha": mhd,
        "packed.nrrd": nrrd,
        "plain.nrrd": raw_nrrd,
        "stack.nii": nifti,
        "stack.nii.gz": gzip.compress(nifti, mtime=0),
        "stack.h5": (folder / "stack.h5").read_bytes(),
    }


def zipped(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # doubled names are meant
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def tarred(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def flip_bits(data: bytes, draw: random.Random, files: dict[str, bytes]) -> bytes:
    bad = bytearray(data)
    for _ in range(draw.randint(1, 64)):
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
    return bytes(bad)


def flip_bits_of_the_header(data: bytes, draw: random.Random, files: dict[str, bytes]) -> bytes:
    bad = bytearray(data)
    for _ in range(draw.randint(1, 16)):
        bad[draw.randrange(min(len(bad), 600))] ^= 1 << draw.randrange(8)
    return bytes(bad)


def truncate(data: bytes, draw: random.Random, files: dict[str, bytes]) -> bytes:
    return data[: draw.randrange(len(data))]


def zero_a_block(data: bytes, draw: random.Random, files: dict[str, bytes]) -> bytes:
    start = draw.randrange(len(data))
    length = min(len(data) - start, draw.randint(1, max(1, len(data) // 3)))
    return data[:start] + bytes(length) + data[start + length :]


def splice(data: bytes, draw: random.Random, files: dict[str, bytes]) -> bytes:
    other = files[draw.choice(sorted(files))]
    return data[: draw.randrange(1, len(data))] + other[draw.randrange(len(other)) :]


def insert_noise(data: bytes, draw: random.Random, files: dict[str, bytes]) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + draw.randbytes(draw.randint(1, 2000)) + data[place:]


def lie_in_the_header(data: bytes, draw: random.Random, files: dict[str, bytes]) -> bytes:
    """Hostile numbers in place of what the header says: sizes, counts, lengths, offsets; in digits where the header is text."""
    text = re.match(rb"(ObjectType|NRRD)[^\0]*?(ElementDataFile = LOCAL\n|\n\n)", data, re.DOTALL)
    if text is not None:
        head = data[: text.end()]
        places = list(re.finditer(rb"[0-9]+", head))
        hit = draw.choice(places)
        lie = str(draw.choice((-1, 0, 3, 99_999, 1_000_000, 2**31, 10**18))).encode()
        return head[: hit.start()] + lie + head[hit.end() :] + data[text.end() :]
    bad = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        width = draw.choice((2, 4, 8))
        place = draw.randrange(max(1, min(len(bad), 900) - width))
        value = draw.choice(HOSTILE_NUMBERS) & ((1 << (8 * width)) - 1)
        bad[place : place + width] = value.to_bytes(width, draw.choice(("little", "big")))
    return bytes(bad[: len(data)])


def intact(data: bytes, draw: random.Random, files: dict[str, bytes]) -> bytes:
    return data


DAMAGES: dict[str, Callable[[bytes, random.Random, dict[str, bytes]], bytes]] = {
    "bits": flip_bits,
    "header-bits": flip_bits_of_the_header,
    "cut": truncate,
    "zeros": zero_a_block,
    "spliced": splice,
    "noise": insert_noise,
    "lie": lie_in_the_header,
    "lie-again": lie_in_the_header,
    "misnamed": intact,
}


def hostile_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """Inputs made to harm: monstrous sizes with valid checksums, archives that lead out, bombs, nothing at all."""

    def png(width: int, height: int) -> bytes:
        def chunk(kind: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")

    def mha(sizes: str, **extra: str) -> bytes:
        fields = "".join(f"{key} = {value}\n" for key, value in extra.items())
        return (
            f"ObjectType = Image\nNDims = 3\n{fields}DimSize = {sizes}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n".encode()
            + bytes(99)
        )

    def with_number(data: bytes, tag: bytes, value: int) -> bytes:
        """A DICOM file with another value of a US element (group and element little-endian)."""
        place = data.index(tag + b"US\x02\x00") + 8
        return data[:place] + value.to_bytes(2, "little") + data[place + 2 :]

    zeros = bytes(64 << 20)
    rows, columns = b"\x28\x00\x10\x00", b"\x28\x00\x11\x00"
    native = files["native.dcm"]
    many = native.replace(b"IS\x02\x00" + b"12", b"IS\x0a\x00" + b"1000000000")
    bomb_mha = mha("30000 3000 1000", CompressedData="True") + zlib.compress(zeros, 9)
    gif = bytearray(files["clip.gif"])
    gif[6:10] = b"\xff\xff\xff\xff"
    return {
        "million.png": png(1_000_000, 1_000_000),
        "wide.png": png(32_767, 3_000),
        "zero.png": png(0, 100),
        "huge.gif": bytes(gif),
        "huge.mha": mha("1000000 1000000 5"),
        "negative.mha": mha("-5 10 10"),
        "bomb.mha": bomb_mha,
        "elsewhere.mhd": mha("10 10 1").replace(b"LOCAL", b"/etc/passwd"),
        "upwards.mhd": mha("10 10 1").replace(b"LOCAL", b"../../secret.raw"),
        "upwards.nhdr": b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 10 10\nencoding: raw\ndata file: ../x.raw\n\n",
        "huge.nrrd": b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 1000000 1000000 9\nencoding: gzip\n\n"
        + gzip.compress(zeros, 9, mtime=0),
        "huge_rows.dcm": with_number(with_number(native, rows, 65_535), columns, 65_535),
        "huge_rows_jpeg.dcm": with_number(with_number(files["jpeg.dcm"], rows, 65_535), columns, 65_535),
        "no_rows.dcm": with_number(native, rows, 0),
        "frames.dcm": many,
        "escape.zip": zipped([("../../out.png", files["still.png"]), ("/abs.png", files["still.png"]), ("ok.png", files["still.png"])]),
        "escape.tar": tarred([("../../out.png", files["still.png"]), ("ok.png", files["still.png"])]),
        "bomb.zip": zipped([("zeros.avi", zeros)]),
        "bomb.tgz": gzip.compress(tarred([("zeros.avi", zeros)]), 9, mtime=0),
        "nested.zip": zipped([("inner.zip", zipped([("inner.zip", files["clips.zip"])]))]),
        "twice.zip": zipped([("a.png", files["still.png"]), ("a.png", files["still.bmp"])]),
        "many.zip": zipped([(f"{number}.txt", b"text " * 9) for number in range(300)]),
        "empty.mp4": b"",
        "one_byte.dcm": b"\0",
        "dicm_only.dcm": bytes(128) + b"DICM",
        "text.avi": b"this is not a film\n" * 50,
        "noise.mkv": random.Random(1).randbytes(40_000),
        "bad_magic.h5": b"\x89HDF\r\n\x1a\n" + random.Random(2).randbytes(4_000),
    }


def make_inputs(folder: Path, count: int, *, seed: int = 0) -> int:
    """Write inputs under `folder`, hostile ones first, and say how many files there are; equal seeds give equal bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        files = intact_files(Path(scratch))
    folder.mkdir(parents=True)
    suffixes = sorted({Path(name).suffix for name in files})
    made = hostile_files(files)
    for name, data in made.items():
        (folder / f"hostile_{name}").write_bytes(data)
    names = sorted(files)
    for number in range(count - len(made)):
        draw = random.Random(f"{seed} {number}")
        name = names[number % len(names)]
        damage = list(DAMAGES)[number // len(names) % len(DAMAGES)]
        data = DAMAGES[damage](files[name], draw, files)
        shown = f"{Path(name).stem}{draw.choice(suffixes)}" if damage == "misnamed" else name
        (folder / f"{number:05}_{damage}_{shown}").write_bytes(data)
    return count


def build_of(folder: Path, out: Path, *, workers: int | None = None, timeout_s: float = 60) -> dict[str, Any]:
    """Build a data set of the inputs; figures of what became of them."""
    from usdata.building import build
    from usdata.manifest import open_dataset
    from usdata.recipe import Reading, Recipe, Source

    source = Source(name="damaged", layout="files")
    recipe = Recipe(name="damaged", sources=[source], read=Reading(timeout_s=timeout_s, memory_mb=1024))
    start = time.monotonic()
    built = build(recipe, raw=folder, out=out, workers=workers)
    videos = open_dataset(out).videos
    rows = set(videos["path"])
    files = sorted(path.name for path in folder.iterdir())
    lost = [name for name in files if name not in rows and not any(row.startswith(f"{name}/") for row in rows)]
    failed = videos.loc[videos["status"] == "failed", ["path", "reason"]]
    limits = Counter(
        "time"
        if "took longer" in reason
        else "memory"
        if "memory" in reason
        else "killed"
        if "killed" in reason or "died" in reason
        else "other"
        for reason in failed["reason"]
    )
    return {
        "inputs": len(files),
        "rows": len(videos),
        "lost": lost,
        "counts": built.counts,
        "damaged_and_kept": int(videos["flags"].map(lambda flags: bool({"truncated", "decode_errors"} & set(flags))).sum()),
        "failures": dict(limits),
        "limits_met": [
            f"{path}: {reason}" for path, reason in failed.itertuples(index=False) if re.search("took longer|memory|killed|died", reason)
        ],
        "seconds": round(time.monotonic() - start, 1),
        # At most so much: a new process begins with the largest size that its parent ever had.
        "peak_worker_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "peak_parent_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Folder for the inputs and the data set; a temporary one by default.")
    arguments = parser.parse_args()
    if arguments.keep is not None and arguments.keep.exists():
        sys.exit(f"error: {arguments.keep}: exists already; remove it, or give another folder")
    with nullcontext(str(arguments.keep)) if arguments.keep is not None else tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder) / "raw", arguments.count, seed=arguments.seed)
        print(json.dumps(build_of(Path(folder) / "raw", Path(folder) / "set"), indent=2))


if __name__ == "__main__":
    main()
