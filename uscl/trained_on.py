"""What weights were trained on: RUN/trained_on.parquet, written before the first step, and found again from any weights of the run.

The file is a record of usdata.duplicates.record: the clips of the run, and of the runs that its starting weights come from. It holds small
pictures of patients, so it stays in the run's folder: neither the export nor its model card has any of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uscl.run_folder import CHECKPOINTS, EXPORT, TRAINED_ON
from usdata.duplicates.record import Record, open_record, write_record
from usdata.files import atomic, sha256_file
from usdata.manifest import DataSet

# Weights that were trained on no ultrasound.
NO_CLIPS = ("random", "imagenet")


@dataclass(frozen=True)
class Known:
    """What is known of the clips that weights were trained on.

    Attributes:
        record: The record of their run; None where it is not at hand.
        digests: sha256 of the clips' files, where only the export's metadata tell of them.
        whole: False: they were trained on more than these, or nothing is known.
    """

    record: Record | None
    digests: tuple[str, ...]
    whole: bool

    @property
    def level(self) -> str:
        """none (no clips), clips (all of them by record), files (some or all by their files' digests alone) or unknown."""
        if self.record is not None:
            return "clips" if all(row["video_id"] is not None for row in self.record.rows) else "files"
        if self.digests:
            return "files"
        return "none" if self.whole else "unknown"


def record_beside(weights: str | Path) -> Path | None:
    """The record that belongs to weights: a run's folder, or a file in it, in its export or in one of its checkpoints; None: none."""
    path = Path(weights)
    if path.is_dir():
        runs = [path]
    else:
        folder = path.resolve().parent
        runs = [folder]
        if folder.name == EXPORT:
            runs.append(folder.parent)
        if folder.parent.name == CHECKPOINTS:
            runs.append(folder.parent.parent)
    return next((run / TRAINED_ON for run in runs if (run / TRAINED_ON).is_file()), None)


def known(weights: str | Path | None, provenance: Mapping[str, Any]) -> Known:
    """What is known of weights.

    Args:
        weights: As for `load_backbone`; None: the provenance is all there is.
        provenance: Of `load_backbone`, or its `kind`, `clips` and `clips_whole`.

    Raises:
        UserError: There is a record, and it is damaged.
    """
    if provenance.get("kind") in NO_CLIPS:
        return Known(None, (), True)
    path = None if weights is None else record_beside(weights)
    if path is not None:
        record = open_record(path)
        return Known(record, (), record.whole)
    clips = provenance.get("clips")
    return Known(None, tuple(clips or ()), clips is not None and bool(provenance.get("clips_whole")))


def needed(out: Path, checkpoint: Path | None) -> bool:
    """Whether a run's record must be written: a run that goes on keeps the one it has."""
    return checkpoint is None or not (out / TRAINED_ON).is_file()


def prepare(folder: Path, dataset: DataSet, video_ids: Collection[str], labelled: Collection[str], before: Known) -> Path:
    """Write the record of a run into a folder, so that what cannot be read is found before the run's own folder is made.

    Args:
        folder: For the time being.
        dataset: What is trained on.
        video_ids: Which of its clips.
        labelled: Those of them whose labels are used.
        before: Of the starting weights.

    Raises:
        DataSetError: The key frames of a clip cannot be read.
        UserError: The record of the starting weights is damaged.
    """
    path = folder / TRAINED_ON
    write_record(path, dataset, video_ids, labelled=labelled, earlier=before.record, digests=before.digests, whole=before.whole)
    return path


def keep(prepared: Path | None, out: Path) -> Record:
    """Put a prepared record into the run's folder, and open it.

    Raises:
        UserError: The run goes on, and the record that it has is damaged.
    """
    if prepared is not None:
        with atomic(out / TRAINED_ON) as temporary:
            shutil.copyfile(prepared, temporary)
    return open_record(out / TRAINED_ON)


def describe(record: Record) -> dict[str, Any]:
    """What run.json says of a record: `file`, `sha256`, `clips`."""
    return {"file": TRAINED_ON, "sha256": sha256_file(record.path), "clips": len(record.rows)}
