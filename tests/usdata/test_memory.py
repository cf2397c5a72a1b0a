"""Memory does not grow with a clip's length: long clips of several formats, each read whole in a process of its own."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.usdata.readers.generated import ffmpeg

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_MB = 400
FRAMES, HEIGHT, WIDTH = 500, 768, 1024

READ = """
import json, sys
from pathlib import Path
from usdata.recipe import Hygiene, Reading
from usdata.sampling import SamplingRule
from usdata.stored_images import frame_measures
from usdata.video_step import look_through
result = look_through(
    Path(sys.argv[1]), sampling=SamplingRule(rule="rate", hz=3.0), read=Reading(), hygiene=Hygiene(blank_mean=0, blank_std=0),
    store=lambda index, pixels, framing: frame_measures(pixels),
)
# Not getrusage's figure: a new process begins with the largest size that its parent ever had.
status = Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"status": result["status"], "reason": result["reason"], "frames": result["video"]["frames_decoded"], "peak_mb": peak}))
"""


def read_whole(path: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, cwd=REPOSITORY, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def long_video(folder: Path) -> tuple[Path, int]:
    path = folder / "long.mp4"
    source = "testsrc2=size=640x480:rate=30:duration=400"
    assert ffmpeg("-v", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", path).returncode == 0
    return path, 12_000


def colour_dicom(folder: Path) -> tuple[Path, int]:
    """1.2 GB of RGB that takes no disk: the pixels are a hole in the file."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    path = folder / "colour.dcm"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.3.1"), UID("1.2.3")
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns, data.NumberOfFrames, data.SamplesPerPixel = HEIGHT, WIDTH, FRAMES, 3
    data.PhotometricInterpretation, data.PlanarConfiguration = "RGB", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.CineRate = 7, 0, 30
    data.PixelData = b"\0\0"
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)
    size = FRAMES * HEIGHT * WIDTH * 3
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(content) - 6)
        file.write(size.to_bytes(4, "little"))
        file.truncate(len(content) - 2 + size)
    return path, FRAMES


def plain_metaimage(folder: Path) -> tuple[Path, int]:
    path = folder / "plain.mha"
    head = f"ObjectType = Image\nNDims = 3\nDimSize = {WIDTH} {HEIGHT} {2 * FRAMES}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    path.write_text(head)
    with path.open("r+b") as file:
        file.truncate(len(head) + WIDTH * HEIGHT * 2 * FRAMES)
    return path, 2 * FRAMES


def packed_nrrd(folder: Path) -> tuple[Path, int]:
    path = folder / "packed.nrrd"
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    with path.open("wb") as file:
        head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {WIDTH} {HEIGHT} {FRAMES}\nencoding: gzip\nkinds: domain domain list\n\n"
        file.write(head.encode())
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
            for number in range(FRAMES):
                packed.write(np.roll(frame, number, axis=1).tobytes())
    return path, FRAMES


@pytest.mark.slow
@pytest.mark.parametrize("make", [long_video, colour_dicom, plain_metaimage, packed_nrrd])
def test_a_long_clip_takes_no_more_memory(make, tmp_path: Path) -> None:
    path, frames = make(tmp_path)
    told = read_whole(path)
    assert (told["status"], told["frames"]) == ("ok", frames), told["reason"]
    assert told["peak_mb"] < LIMIT_MB
    print(f"{make.__name__}: {frames} frames, peak {told['peak_mb']:.0f} MB")
