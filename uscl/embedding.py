"""`uscl embed`: what a frozen backbone makes of every frame, as one Parquet file.

In: a data set and weights. Out: a row a frame, sorted and keyed as the manifest, with its features as a fixed-size list of float32, and in
the file's metadata what the weights, the data set and the pictures were. Frames pass in blocks, so memory does not grow with their number;
equal input gives equal bytes on one kind of device, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from uscl.backbones import Backbone
from uscl.config import BACKBONES
from uscl.evaluation.features import choose_device, weights_digest
from uscl.evaluation.selection import ROW, matching_frames
from uscl.frames import FrameStore, open_store
from uscl.models import load_backbone, named_architecture, normalise
from uscl.whole_folder import check_file
from usdata.console import progress
from usdata.errors import UserError, nearest
from usdata.files import atomic, canonical_json
from usdata.manifest import DataSet, open_dataset
from usdata.signals import stop_signals

Precision = Literal["float32", "bfloat16"]
EMBEDDINGS_VERSION = 1
DEFAULT_IMAGE_SIZE = 224
LEAST_IMAGE_SIZE = 32
# A row group: 17 MB of 512 features a frame, 67 MB of 2,048.
BLOCK_ROWS = 8192
# Frames of one forward pass, of which each thread computes its own: of 16 frames of 224 x 224 a ResNet-18's largest activations take
# 51 MB. The sums of a pass depend on how many frames it has and on how many threads share it, so both are fixed.
PASS_FRAMES = 16
GPU_PASS_FRAMES = 128

# What a table of ours knows a frame by, as in frames.parquet.
KEYS = (
    ("frame_id", pa.string(), False, "as in frames.parquet"),
    ("video_id", pa.string(), False, "as in frames.parquet"),
    ("source", pa.string(), False, "as in frames.parquet"),
    ("group_id", pa.string(), False, "as in frames.parquet"),
    ("frame_index", pa.int64(), False, "as in frames.parquet"),
    ("label", pa.string(), True, "as in frames.parquet; null = unlabelled"),
)


@dataclass(frozen=True)
class EmbedResult:
    """What an embedding made.

    Attributes:
        out: The Parquet file.
        frames: Its rows.
        width: Features a frame.
        image_size: Height and width in pixels that frames were brought to.
        weights: Where the weights come from, as the file's metadata say.
    """

    out: Path
    frames: int
    width: int
    image_size: int
    weights: dict[str, Any]


def embed(
    dataset: str | Path,
    *,
    weights: str | Path,
    out: str | Path,
    image_size: int | None = None,
    where: Sequence[str] = (),
    precision: Precision = "float32",
    threads: int | None = None,
    overwrite: bool = False,
) -> EmbedResult:
    """Write the features of a data set's frames.

    Args:
        dataset: Data set folder; labels are not needed.
        weights: A run folder, a file of weights, 'random', 'imagenet', or one of these after the name of a backbone ('resnet50:random').
        out: The Parquet file to write.
        image_size: Height and width in pixels; by default the one the weights were trained at, else 224.
        where: Filters, see `uscl.evaluation.selection.select_frames`.
        precision: What the network computes in; features are float32 either way.
        threads: On the CPU; by default as many as torch uses. They change nothing but the time.
        overwrite: Replace what stands at `out`.

    Raises:
        UserError: `out` is taken, the weights or the data set cannot be read, a filter or a setting is wrong, or features are not finite.
    """
    out = Path(out)
    if precision not in get_args(Precision):
        raise UserError(f"--precision {precision}", "is not known", nearest(precision, get_args(Precision)))
    check_file(out, overwrite=overwrite)
    opened = open_dataset(dataset)
    frames = matching_frames(opened, where=where)
    backbone, provenance, size = sized_backbone(weights, image_size)
    about = described(backbone, provenance)
    # A signal takes the unfinished file away, as an error does.
    with stop_signals():
        store = open_store(opened, size=size)
        schema = _schema(backbone.width, opened, about, size, precision, where)
        blocks = feature_blocks(
            backbone, store, frames[ROW].to_numpy(dtype=np.int64), subject=weights, precision=precision, threads=threads
        )
        with atomic(out) as temporary, pq.ParquetWriter(temporary, schema, **PARQUET) as writer:
            start = 0
            for features in blocks:
                part = frames.iloc[start : start + len(features)]
                start += len(features)
                column = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), type=schema.field("features").type)
                writer.write_table(pa.Table.from_arrays([*key_columns(part), column], schema=schema), row_group_size=BLOCK_ROWS)
    return EmbedResult(out, len(frames), backbone.width, size, about)


# Numbers that hardly repeat gain nothing from dictionaries, and ids gain all.
PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "version": "2.6",
    "use_dictionary": [name for name, _, _, _ in KEYS],
    "write_page_index": True,
}


def sized_backbone(weights: str | Path, image_size: int | None) -> tuple[Backbone, dict[str, Any], int]:
    """A backbone for one size of pictures, its provenance (see `load_backbone`), and the size.

    Raises:
        UserError: The size is too small, or the weights cannot be read.
    """
    if image_size is not None and image_size < LEAST_IMAGE_SIZE:
        raise UserError(f"--image-size {image_size}", "is too small", f"give {LEAST_IMAGE_SIZE} or more")
    name, word = named_architecture(str(weights))
    name = name or BACKBONES[0]
    backbone, provenance = load_backbone(word, name=name, image_size=image_size)
    size = image_size or provenance["image_size"] or DEFAULT_IMAGE_SIZE
    if image_size is None and provenance["image_size"] is None:
        # A transformer is made for one size, which is not timm's own where nobody says it.
        backbone, provenance = load_backbone(word, name=name, image_size=size)
    return backbone, provenance, size


def described(backbone: Backbone, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Weights for a record: where they come from, the digest of their values, nothing that is null, and no path."""
    # Thousands of clips' digests belong to the export itself.
    about = {key: value for key, value in provenance.items() if value is not None and key not in ("clips", "clips_whole")}
    return {**about, "backbone": backbone.name, "weights_sha256": weights_digest(backbone)}


def feature_blocks(
    backbone: Backbone,
    store: FrameStore,
    rows: NDArray[np.int64],
    *,
    subject: str | Path,
    precision: Precision = "float32",
    threads: int | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Features of frames, (up to BLOCK_ROWS, width) at a time, in the order of the rows.

    Each pass has its fixed share of the frames and one thread, so that the number of threads changes no bit; a GPU takes one after another,
    with deterministic algorithms and without TF32.

    Args:
        backbone: Is put into evaluation mode.
        store: Decoded frames.
        rows: (n,) row numbers of `store.pixels`.
        subject: What an error is about, and the progress line: the weights.
        precision: What the network computes in.
        threads: On the CPU; by default as many as torch uses.

    Raises:
        UserError: Features are not finite.
    """
    device = choose_device()
    backbone.to(device).eval()
    size = GPU_PASS_FRAMES if device.type == "cuda" else PASS_FRAMES
    before = torch.get_num_threads()
    workers = 1 if device.type == "cuda" else threads or before

    def forward(chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            features = backbone(normalise(torch.from_numpy(store.pixels[chosen]).to(device)))
            found: NDArray[np.float32] = features.float().cpu().numpy()
            return found

    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with progress(f"extracting features of {subject}", len(rows), "frames") as advance:
            for start in range(0, len(rows), BLOCK_ROWS):
                block = rows[start : start + BLOCK_ROWS]
                parts = []
                for part in pool.map(forward, [block[first : first + size] for first in range(0, len(block), size)]):
                    parts.append(part)
                    advance(len(part))
                features = np.concatenate(parts)
                if not np.isfinite(features).all():
                    raise UserError(subject, "gives features that are not finite", "these weights come from a training that failed")
                yield features
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def key_columns(frames: pd.DataFrame) -> list[pa.Array]:
    """The columns of KEYS."""
    return [pa.array(frames[name], type=kind, from_pandas=True) for name, kind, _, _ in KEYS]


def key_fields() -> list[pa.Field]:
    """The fields of KEYS."""
    return [pa.field(name, kind, nullable=null, metadata={"description": text}) for name, kind, null, text in KEYS]


def _schema(width: int, dataset: DataSet, about: Mapping[str, Any], size: int, precision: str, where: Sequence[str]) -> pa.Schema:
    told = {"description": f"what {about['backbone']} gives before its classifier"}
    features = pa.field("features", pa.list_(pa.float32(), width), nullable=False, metadata=told)
    metadata = {
        "uscl.embeddings_version": str(EMBEDDINGS_VERSION),
        "uscl.weights": canonical_json(about),
        "uscl.weights_sha256": about["weights_sha256"],
        "uscl.dataset_name": dataset.name,
        "uscl.dataset_digest": dataset.digest,
        "uscl.image_size": str(size),
        "uscl.precision": precision,
        "uscl.where": canonical_json(list(where)),
        "uscl.device": choose_device().type,
    }
    return pa.schema([*key_fields(), features], metadata=metadata)
