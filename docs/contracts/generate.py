"""Write the contract pages from the code that they describe: `python docs/contracts/generate.py`. A test holds them equal."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from uscl.checkpoint import STATE_VERSION
from usdata import manifest
from usdata.duplicates.record import RECORD_SCHEMA, RECORD_VERSION
from usdata.known_layouts import KNOWN_LAYOUTS
from usdata.migrating.steps import ADDED, CHANGES
from usdata.recipe import Recipe

FOLDER = Path(__file__).resolve().parent

DATA_SET = """\
# Contract: the data set folder

    SET/
      dataset.json         name, recipe as resolved, digests, classes, counts, licences, versions of what decoded it
      videos.parquet       a row per file found: the failed and excluded ones too, with status and reason
      frames.parquet       a row per kept frame: the manifest that `uscl` reads
      excluded.parquet     a row per frame that decoded and was not kept, with the reason
      duplicates.parquet   a row per verified pair of clips
      images/<source>/<video>/<video>_frame<k>.png
      report.html  report.json  report.md  ATTRIBUTION.md     written by `usdata audit`; they go when the tables change

Schema version {version}. The tables are sorted by source, video and frame, compressed with zstd in row groups of {rows:,} rows, hold no
image bytes, and open as they are in pandas, DuckDB, Polars and `datasets.load_dataset("parquet")`. Their Parquet metadata carries the
schema version and the recipe's digest. Paths are relative to the folder, which can be moved.

Promises: equal raw bytes and an equal recipe give byte-identical tables and images, whatever the number of workers, the order of the
files, the place, or interruptions. Every file under the raw folder has one row: kept, excluded or failed; the three add up. A folder that
has a `dataset.json` is whole. No two folds share a group. `dataset.json`'s `digest` is the sha256 over the digests of the four tables.
Where the split or the folds are published ones and not the recipe's (`usdata split --published --apply`), it has `split_origin` or
`fold_origin`: kind, name, sha256, and how much of it leaks; such parts may share a group.
"""

VERSIONS = """
## Schema versions

A set of an older version is not opened: `usdata migrate SET` brings it to this one in place, step by step. Values that stood stay; a new
column is measured on the set's own pictures, or null, and `dataset.json`'s `migrated` says from which version and what stays unknown. Where
a column may not be null and its pictures are gone, the step is refused. A newer version is refused too. No version took a column away.

| version | what came | columns |
|---|---|---|
"""

RECIPE = """\
# Contract: the recipe

One YAML file says what to build. `usdata build NAME|FILE` takes a shipped recipe's name (`manifests/`) or a file; `--set a.b=c` changes a
key (`--set sources.0.sampling.hz=5`). An unknown key is refused with the nearest right one. `base: other` takes another recipe's keys
where this one says nothing (a shipped name, or a path beside the recipe); sources are matched by name. `include: [one, two]` takes in other
recipes' sources, and nothing else of them; `sources` may then change keys of those by name. `manifests/us4.yaml` does both.
"""

LAYOUTS = """\
# Known layouts

How known sources name clips, patients and labels on disk. `layout: clust` in a recipe's source fills in these keys where the source does
not say them itself; `table` (a CSV names the clips) and `files` (every media file is a clip) are the general ones and fill in nothing.
Paths are below the source's `root`. What a layout does not take is excluded with a reason, never dropped.
"""

RUN = """\
# Contract: the run folder

    RUN/
      config.yaml          the recipe as resolved; what a resume must agree with
      environment.json     versions and devices; file and sha256 of a method of your own
      run.json             status, data set and its digest, starting weights, digest of trained_on.parquet, steps, what was exported
      trained_on.parquet   the clips that the weights were trained on, to be recognised where their data set is not at hand
      metrics.jsonl        a line of figures at intervals
      log.txt              what was said
      tensorboard/         the same figures for TensorBoard, where it is installed: an event file a session
      checkpoints/<name>/  model.safetensors, optimizer.safetensors, state.json: see below
      export/              backbone.safetensors and its model card: what may be handed on

## checkpoints

| folder | what it is |
|---|---|
| `last` | what `--resume` goes on from; written by epochs, by minutes, at the end, and when a signal stops the run |
| `previous` | the `last` before it, which is gone on from where `last` is damaged |
| `best` | the best by `checkpoint.best`, a figure of metrics.jsonl |
| `step-000500` | kept every `checkpoint.keep_every_steps` steps; the newest `checkpoint.keep_last` of them stay |
| `last-damaged` | a `last` that was found damaged and put aside; nothing reads it |

| file | content |
|---|---|
| `model.safetensors` | the method's tensors; after `backbone.` stand torchvision's names, after `backbone.network.` timm's |
| `optimizer.safetensors` | the optimizer's tensors, as `<parameter's name>.<entry>`; a parameter without a gradient so far has none |
| `extra.safetensors` | more tensors, where the run keeps some (an average of the weights: `average.`) |
| `state.json` | where the run stands, and the sha256 of each file |

`state.json`, version {state_version}: `step`; `epoch` and `batch` of the next step; `seconds`; `config_digest`; `dataset_digest`;
`optimizer`, its class; `judged`, by which figure and value `best` was chosen; `files`, a sha256 each; `sha256`, of all of this as
canonical JSON.

A checkpoint is written under a temporary name (`.last.part`), flushed to the disk and renamed, so it is whole or absent; while it is
written there must be room for three (`last`, `previous`, the new one). Every resume compares all files with their sha256 first. Where
`last` is damaged it says so, goes on from `previous`, and ends with the same weights; where both are, it stops with one line and changes
nothing. Where a save fails (the disk is full), the run stops with one line, and `last` is as it was.

## trained_on.parquet

Version {version}. A row a clip that is trained on, then those that the starting weights were trained on (`--init-from`), through any chain
of runs. It is written once, before the first step, at once or not at all; equal data sets and settings give equal bytes, and a resume
leaves it as it is. Its metadata say `usdata.record_whole` = `no` where the chain starts from weights of which it is not known what they
were trained on.

**It holds small pictures of patients** (key frames of 64 x 64 pixels) and their pseudonyms. Nothing of it is in `export/`, whose file has
the sha256 of the raw clips alone. It may go where the data set may go, and nowhere else; a run that is handed on goes without it.

| column | type | null | meaning |
|---|---|---|---|
"""


def data_set_page() -> str:
    """The page on the data set folder."""
    parts = [DATA_SET.format(version=manifest.SCHEMA_VERSION, rows=manifest.ROW_GROUP_ROWS)]
    for name, schema in manifest.SCHEMAS.items():
        parts.append(f"\n## {name}\n\n| column | type | null | meaning |\n|---|---|---|---|\n")
        for field in schema:
            meaning = field.metadata[b"description"].decode().replace("|", "\\|").replace("<", "&lt;")
            parts.append(f"| `{field.name}` | {field.type} | {'yes' if field.nullable else 'no'} | {meaning} |\n")
    parts.append(VERSIONS)
    for version in range(1, manifest.SCHEMA_VERSION + 1):
        tables = [
            f"{name.removesuffix('.parquet')}: " + ", ".join(f"`{column}`" for column in columns)
            for name, columns in ADDED.get(version, {}).items()
        ]
        parts.append(f"| {version} | {CHANGES[version]} | {'; '.join(tables)} |\n")
    return "".join(parts)


def run_page() -> str:
    """The page on the run folder."""
    parts = [RUN.format(version=RECORD_VERSION, state_version=STATE_VERSION)]
    for field in RECORD_SCHEMA:
        meaning = field.metadata[b"description"].decode().replace("<", "&lt;")
        parts.append(f"| `{field.name}` | {field.type} | {'yes' if field.nullable else 'no'} | {meaning} |\n")
    return "".join(parts)


def recipe_page() -> str:
    """The page on the recipe's keys."""
    parts = [RECIPE]
    for place, model in _sections(Recipe, ""):
        text = inspect.cleandoc(model.__doc__ or "")
        parts.append(f"\n## {place or 'top level'}\n\n{text}\n\n| key | type | default | meaning |\n|---|---|---|---|\n")
        for key, field in model.model_fields.items():
            meaning = (field.description or "").replace("|", "\\|").replace("<", "&lt;")
            parts.append(f"| `{key}` | {_type_name(field.annotation)} | {_default(field)} | {meaning} |\n")
    return "".join(parts)


def layouts_page() -> str:
    """The page on the known layouts."""
    parts = [LAYOUTS]
    for name, layout in KNOWN_LAYOUTS.items():
        tree = "".join(f"    {path}\n" for path in layout.tree)
        settings = yaml.safe_dump(dict(layout.settings), sort_keys=False, allow_unicode=True, width=1000, default_flow_style=None)
        parts.append(f"\n## {name}\n\n{layout.about}\n\n{tree}\nfills in:\n\n```yaml\n{settings}```\n")
    return "".join(parts)


def _sections(model: type[BaseModel], place: str) -> list[tuple[str, type[BaseModel]]]:
    found = [(place, model)]
    for key, field in model.model_fields.items():
        is_list = typing.get_origin(field.annotation) is list
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += _sections(kind, f"{place}.{key}".lstrip(".") + ("[]" if is_list else ""))
    return found


def _type_name(annotation: object) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return " \\| ".join(str(value) for value in typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and typing.get_origin(annotation) is None:
        return "section"
    name = str(annotation) if typing.get_origin(annotation) else getattr(annotation, "__name__", str(annotation))
    if "typing.Literal" in name:
        return "mapping of fact to text" if name.startswith("dict") else "choice"
    for module in ("typing.", "usdata.recipe.", "usdata.sampling."):
        name = name.replace(module, "")
    return name.replace("NoneType", "null").replace("None", "null").replace("|", "\\|")


def _default(field: object) -> str:
    value = getattr(field, "default", None)
    factory = getattr(field, "default_factory", None)
    if factory is not None:
        return f"`{factory()}`"
    if value is PydanticUndefined:
        return "needed"
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_unset=True)
        return f"`{given}`" if given else "see below"
    return "null" if value is None else f"`{value}`" if value != "" else "empty"


PAGES = {"data-set.md": data_set_page, "run.md": run_page, "recipe.md": recipe_page, "layouts.md": layouts_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
        print(FOLDER / name)
