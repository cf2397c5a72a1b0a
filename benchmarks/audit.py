"""How long audit and validation of a very large manifest take, and how quickly the commands start.

    python benchmarks/audit.py SET [--clips 50000] [--frames 1000000] [--keep FOLDER]

SET is a data set that was built (its images are not looked at). Its clips are repeated under other ids, patients, groups and digests, with
rates and sizes jittered, until there are enough; frames likewise. The audit runs with `pictures=False` in a process of its own; seconds are
wall time with everything imported and all four files written, memory is that process's peak. Start times are medians of five.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from measured import hand_on

from usdata import manifest

AUDIT = """
import json, resource, sys, time
start = time.perf_counter()
import usdata
result = usdata.audit(sys.argv[1], pictures=False)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
totals = result.statistics["totals"]
print(json.dumps({"seconds": round(seconds, 1), "peak_mb": round(peak), "clips": totals["clips"], "frames": totals["frames"],
                  "excluded_frames": sum(row["frames"] for stage in result.statistics["flow"]["stages"] for row in stage["left_out"]),
                  "findings": {finding.id: len(finding.rows) for finding in result.findings}}))
"""


VALIDATE = """
import json, resource, sys, time
start = time.perf_counter()
import usdata
result = usdata.validate(sys.argv[1])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"validate_seconds": round(seconds, 1), "peak_mb": round(peak), "holds": result.holds,
                  "checked": {promise.id: promise.checked for promise in result.promises}}))
"""


def enlarge(small: Path, large: Path, *, clips: int, frames: int) -> None:
    """Write the tables of a data set of so many clips and frames, made of another one's rows; no images."""
    dataset = manifest.open_dataset(small)
    tables = {name: manifest.read_table(small, name) for name in manifest.SCHEMAS}
    copies = math.ceil(clips / int(pc.sum(pc.equal(tables[manifest.VIDEOS].column("status"), "ok")).as_py()))
    wanted = math.ceil(frames / copies)  # of each copy
    tables[manifest.VIDEOS], tables[manifest.FRAMES] = _with_more_frames(tables[manifest.VIDEOS], tables[manifest.FRAMES], wanted)
    draw = np.random.default_rng(0)
    large.mkdir(parents=True)
    for name, table in tables.items():
        copied = pa.concat_tables([_copied(table, number, draw) for number in range(copies)])
        manifest.write_table(large, name, copied.cast(manifest.SCHEMAS[name]), recipe_digest=dataset.about["recipe_digest"])
    counts = {key: number * copies for key, number in dataset.about.get("counts", {}).items() if key != "frames"}
    about = {key: value for key, value in dataset.about.items() if key not in ("digest", "schema_version")}
    about["counts"] = counts | {"frames": tables[manifest.FRAMES].num_rows * copies}
    about["duplicates"] = about.get("duplicates", {}) | {"pairs": tables[manifest.DUPLICATES].num_rows * copies}
    manifest.write_about(large, about)


def _with_more_frames(videos: pa.Table, frames: pa.Table, wanted: int) -> tuple[pa.Table, pa.Table]:
    """Frames repeated under later indices until there are that many, and the clips' counts with them."""
    parts, offset = [frames], 0
    while (missing := wanted - sum(part.num_rows for part in parts)) > 0:
        offset += 1_000_000
        later = pc.add(frames.column("frame_index"), offset)
        again = _with(frames, "frame_index", later)
        names = pc.binary_join_element_wise(frames.column("video_id"), pc.cast(later, pa.string()), "/")
        again = _with(again, "frame_id", names)
        again = _with(again, "path", pc.binary_join_element_wise(frames.column("path"), pc.cast(later, pa.string()), ""))
        parts.append(again.slice(0, missing))
    grown = pa.concat_tables(parts).sort_by([(key, "ascending") for key in ("source", "video_id", "frame_index")])
    more = pa.concat_tables([pa.table({"video_id": part.column("video_id")}) for part in parts[1:]]) if parts[1:] else None
    counts = dict.fromkeys(videos.column("video_id").to_pylist(), 0)
    for video in more.column("video_id").to_pylist() if more is not None else ():
        counts[video] += 1
    added = pa.array([counts[video] for video in videos.column("video_id").to_pylist()], pa.int64())
    for column in ("frames_kept", "frames_decoded", "frames_unique"):
        videos = _with(videos, column, pc.add(videos.column(column), added))
    return videos, grown


def _with(table: pa.Table, column: str, values: pa.ChunkedArray) -> pa.Table:
    """The table with other values in a column."""
    return table.set_column(table.schema.get_field_index(column), table.schema.field(column), values)


def _copied(table: pa.Table, number: int, draw: np.random.Generator) -> pa.Table:
    """The rows under ids of their own; copies stand in order, so the whole stays sorted."""
    for column in table.column_names:
        values = table.column(column)
        if column.startswith("video_id") or column in ("frame_id", "group_id"):
            new = pc.replace_substring(values, "/", f"/r{number:05}-", max_replacements=1)
        elif column in ("key_frames_path", "overlay_path") or (column == "path" and "frame_id" in table.column_names):
            new = pc.replace_substring_regex(values, "^images/([^/]+)/", f"images/\\1/r{number:05}-")
        elif column in ("patient_id", "path", "duplicate_group"):
            new = pc.binary_join_element_wise(f"r{number:05}", values, "-")
        elif column in ("sha256", "packets_sha256", "luma_sha256", "pixel_sha256"):
            new = pc.binary_join_element_wise(f"{number:08x}", pc.utf8_slice_codeunits(values, 8), "")
        elif column in ("fps", "duration_s", "quality_mean", "quality_std", "quality_sharpness"):
            new = pc.multiply(values, pa.array(draw.uniform(0.98, 1.02, len(values))))
        elif column == "bytes":
            new = pc.cast(pc.multiply(values, pa.array(draw.uniform(0.9, 1.1, len(values)))), pa.int64(), safe=False)
        else:
            continue
        table = _with(table, column, new)
    return table


def start_time(*command: str) -> float:
    """Median seconds of five runs of a Python command, after one that warms the disk's cache."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Make the set, audit it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--clips", type=int, default=50_000)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="folder for the large set, which then stays")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="usdata-audit-") as scratch:
        large = given.keep or Path(scratch) / "set"
        if not large.exists():
            enlarge(given.set, large, clips=given.clips, frames=given.frames)
        done = subprocess.run([sys.executable, "-c", AUDIT, str(large)], capture_output=True, text=True, check=True)
        audited = json.loads(done.stdout)
        print(json.dumps(audited, indent=2))
        hand_on(f"audit of {audited['frames']:,} frames", audited["seconds"], "s", limit=60)
        hand_on("its memory", audited["peak_mb"], "MB", limit=2000, load=False)
        checked = subprocess.run([sys.executable, "-c", VALIDATE, str(large)], capture_output=True, text=True, check=True)
        validated = json.loads(checked.stdout)
        print(json.dumps(validated, indent=2))
        hand_on("validation of its tables", validated["validate_seconds"], "s", limit=20)
        sizes = {name: f"{(large / name).stat().st_size / 1e6:.1f} MB" for name in manifest.REPORT_FILES}
        print(f"files: {sizes}")
    bare = start_time("-c", "pass")
    print(f"python -c pass: {bare:.3f} s")
    for name, limit, command in (("import usdata", 0.3, ["-c", "import usdata"]), ("usdata --help", 0.6, ["-m", "usdata", "--help"])):
        seconds = start_time(*command)
        hand_on(name, seconds, "s", limit=limit)
        print(f"{name}: {seconds:.3f} s")


if __name__ == "__main__":
    main()
