"""The dataset card (README.md) of a set on the Hugging Face Hub: a YAML head for machines, then a page for people.

In: a data set and the schema of its shards. Out: the card's text. Guarantees: every number is counted from the manifest; names and labels
from the data are escaped; a licence is named only where all clips carry one that is known for certain.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import yaml

from usdata.exporting.licences import ATTRIBUTION, clips_by_licence, known_licence, known_sources
from usdata.manifest import DataSet

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
_MARKUP = re.compile(r"([\\`*_\[\]#!|~$]|^[-+])")


def dataset_card(data: DataSet, frames: pa.Table, schema: pa.Schema, splits: Sequence[str], attribution: bool) -> str:
    """The card's text.

    Args:
        data: The data set.
        frames: Its frames.parquet.
        schema: Columns of the shards.
        splits: Names of the splits that have shards.
        attribution: Whether an attribution file stands beside the card.
    """
    kept = data.videos[data.videos["frames_kept"] > 0]
    licences = clips_by_licence(kept)
    head = {
        "pretty_name": data.name,
        **_licence(list(licences), attribution),
        "task_categories": ["image-classification" if data.classes else "image-feature-extraction"],
        "tags": ["medical", "ultrasound"],
        "size_categories": [next((name for below, name in _SIZES if len(frames) < below), "n>10M")],
        "configs": [
            {"config_name": "default", "data_files": [{"split": name, "path": f"data/{name}-*-of-*.parquet"} for name in splits]},
        ],
    }
    digest = re.sub(r"[^0-9a-f]", "", data.digest)
    sections = [
        f"# {markdown(data.name)}",
        markdown(str(data.about.get("description") or "Frames of ultrasound clips.")),
        f"{len(frames):,} frames of {len(kept):,} clips in {kept['group_id'].nunique():,} groups (a patient where one is known), as the "
        f"manifest with the digest `{digest}` lists them. Rows stand in its order: by source, clip, frame.",
        "## Splits\n\n" + _splits(frames),
        "## Labels\n\n" + _labels(data, frames),
        "## Licences\n\n" + _licence_table(licences, attribution),
        "## Sources\n\n" + _sources(data),
        "## Columns\n\n" + _columns(schema),
    ]
    privacy = data.about.get("privacy")
    if isinstance(privacy, dict):
        sections.insert(-1, "## Privacy\n\n" + _privacy(privacy))
    return "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True) + "---\n\n" + "\n\n".join(sections) + "\n"


def markdown(text: str) -> str:
    """Text from outside on one line of Markdown, where it makes neither markup nor HTML."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _licence(names: list[str | None], attribution: bool) -> dict[str, Any]:
    if names == [None]:
        return {"license": "unknown"}
    known = known_licence(names[0]) if len(names) == 1 and names[0] is not None else None
    if known is not None and known.identifier is not None:
        return {"license": known.identifier}
    name = names[0] if len(names) == 1 and names[0] is not None else "mixed"
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "see-card"
    return {"license": "other", "license_name": slug, "license_link": ATTRIBUTION if attribution else "README.md"}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _splits(frames: pa.Table) -> str:
    rows = frames.select(["split", "video_id", "group_id"]).to_pandas().groupby("split").agg(
        frames=("video_id", "size"), clips=("video_id", "nunique"), groups=("group_id", "nunique")
    )  # fmt: skip
    ordered = [name for name in ("train", "val", "test") if name in rows.index]
    named = {"val": "validation"}
    return _table(
        ("split", "frames", "clips", "groups"),
        [(named.get(name, name), *(f"{int(count):,}" for count in rows.loc[name])) for name in ordered],
    )


def _labels(data: DataSet, frames: pa.Table) -> str:
    counts = Counter(frames["label"].to_pylist())
    clips = Counter(None if label != label else label for label in data.videos.loc[data.videos["frames_kept"] > 0, "label"])
    rows = [(str(index), markdown(name), f"{counts[name]:,}", f"{clips[name]:,}") for index, name in enumerate(data.classes)]
    if counts[None]:
        rows.append(("null", "unlabelled", f"{counts[None]:,}", f"{clips[None]:,}"))
    return _table(("class", "name", "frames", "clips"), rows)


def _licence_table(licences: dict[str | None, int], attribution: bool) -> str:
    rows = []
    for name, clips in licences.items():
        known = None if name is None else known_licence(name)
        shown = "unknown" if name is None else markdown(name)
        rows.append((shown if known is None else f"[{shown}]({known.url})", f"{clips:,}"))
    text = _table(("licence", "clips"), rows) + "\n\nThe column `licence` names each frame's own."
    return f"{text} Who is to be named stands in [{ATTRIBUTION}]({ATTRIBUTION})." if attribution else text


def _sources(data: DataSet) -> str:
    known = {entry.name: entry for entry in known_sources(data)}
    lines = []
    for name in sorted(set(data.videos["source"])):
        entry = known.get(name)
        line = f"- {markdown(name)}"
        if entry is not None:
            line += f": {markdown(entry.title)}. {markdown(entry.citation)}"
            line += f" <{entry.homepage}>" if entry.homepage else ""
        lines.append(line)
    return "\n".join(lines)


def _privacy(privacy: dict[str, Any]) -> str:
    released = (
        "Built as a release: pixels outside the field of view are zero."
        if privacy.get("release")
        else "Not built as a release: pictures stand as they came, with what is written on them."
    )
    return f"{released} Patient ids: {markdown(str(privacy.get('identifiers', 'unknown')))}."


def _columns(schema: pa.Schema) -> str:
    return _table(
        ("column", "meaning"),
        [(f"`{field.name}`", markdown((field.metadata or {}).get(b"description", b"").decode())) for field in schema],
    )
