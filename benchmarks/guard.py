"""What the leakage guard costs: the record of one data set, written and compared with another.

    python benchmarks/guard.py PRETRAINING_SET TEST_SET

Prints the record's size, the seconds of writing it and of comparing it with every clip of the other set, CPU time, what was found, and the
seconds of asking again. What TEST_SET keeps of earlier comparisons is removed first.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from measured import hand_on

from usdata.duplicates.guard import seen_clips
from usdata.duplicates.kept_matches import FOLDER, PATTERN
from usdata.duplicates.record import open_record, write_record
from usdata.manifest import open_dataset


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pretraining", type=Path)
    parser.add_argument("test", type=Path)
    given = parser.parse_args()
    trained, tested = open_dataset(given.pretraining), open_dataset(given.test)
    with TemporaryDirectory() as place:
        path = Path(place) / "trained_on.parquet"
        began = time.perf_counter()
        write_record(path, trained, set(trained.frames["video_id"]))
        written = time.perf_counter()
        record = open_record(path)
        for kept in (tested.folder / FOLDER).glob(PATTERN):
            kept.unlink()
        seen = seen_clips(record, tested, set(tested.frames["video_id"]))
        compared = time.perf_counter()
        used = cpu_s()
        seen_clips(record, tested, set(tested.frames["video_id"]))
        again = time.perf_counter()
        size = path.stat().st_size
    clips = len(record.rows)
    hand_on("comparing clips that are new, CPU", used, "s")
    hand_on("asking again", again - compared, "s")
    told = f"{clips:,} clips, {size / 1e6:.1f} MB, {size / clips / 1e3:.0f} kB a clip"
    print(f"record of {trained.name}: {told}, written in {written - began:.1f} s")
    tested_clips = tested.frames["video_id"].nunique()
    print(f"compared with the {tested_clips:,} clips of {tested.name} in {compared - written:.1f} s; {used:.0f} s of CPU altogether")
    print(f"asked again: {again - compared:.2f} s")
    kinds = Counter(each.kind for each in seen)
    print(f"not new: {len(seen)}" + "".join(f", {count} by {kind}" for kind, count in sorted(kinds.items())))


def cpu_s() -> float:
    """CPU time of this process and its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
