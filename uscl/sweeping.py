"""Sweeps: every combination of recipes, values and seeds, each a run of its own, one after another.

In come a data set and what is to be varied; out come run folders with readable names under one folder, sweep.json, and their figures over
the seeds. All configurations are validated before the first run starts; what is finished is not trained again, so the same command goes on
after any stop.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from uscl import processes, run_folder
from uscl.config import Config, flat, load_config
from uscl.train import pretrain
from usdata.console import safe_text, say
from usdata.errors import RecipeError, Stopped, UserError
from usdata.files import sha256_text, write_json
from usdata.manifest import DataSet, open_dataset
from usdata.signals import stop_signals

SWEEP, SWEEP_VERSION = "sweep.json", 1
FIGURES = ("loss", "positive_similarity", "negative_similarity", "knn_accuracy", "knn_balanced_accuracy")
# What a file system surely takes as one name is 255 bytes.
_LONGEST_NAME = 160


@dataclass(frozen=True)
class SweptRun:
    """A run of a sweep.

    Attributes:
        name: Its folder's, below that of the sweep.
        combination: The name without the seed.
        recipe: Name of a recipe, or a YAML file.
        settings: What is varied, by dotted key, as resolved; without the seed.
        seed: Of the run; None where it is not varied.
        status: planned, begun (it can go on), finished or failed.
        steps: Optimiser steps of the whole run.
        figures: The last ones of metrics.jsonl; None unless it is finished.
        problem: Why it failed.
    """

    name: str
    combination: str
    recipe: str
    settings: dict[str, Any]
    seed: int | None
    status: str = "planned"
    steps: int = 0
    figures: dict[str, float] | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Spread:
    """A figure over the finished runs of a combination; `sd` is the sample's, None for one run."""

    mean: float
    sd: float | None
    min: float
    max: float


@dataclass(frozen=True)
class SweepResult:
    """What a sweep did.

    Attributes:
        out: Its folder.
        runs: In their order.
    """

    out: Path
    runs: tuple[SweptRun, ...]

    @property
    def failed(self) -> tuple[SweptRun, ...]:
        """The runs that failed."""
        return tuple(run for run in self.runs if run.status == "failed")

    def combinations(self) -> dict[str, list[SweptRun]]:
        """The runs of each combination, which differ in their seed."""
        found: dict[str, list[SweptRun]] = {}
        for run in self.runs:
            found.setdefault(run.combination, []).append(run)
        return found

    def spread(self, combination: str, figure: str) -> Spread | None:
        """One of `FIGURES` over the finished runs of a combination; None where none has it."""
        found = [run.figures[figure] for run in self.combinations()[combination] if run.figures and figure in run.figures]
        if not found:
            return None
        return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, min(found), max(found))

    def to_json(self) -> dict[str, Any]:
        """Runs and combinations for programs."""
        combinations = []
        for name, runs in self.combinations().items():
            spreads = {figure: self.spread(name, figure) for figure in FIGURES}
            figures = {figure: None if spread is None else vars(spread) for figure, spread in spreads.items()}
            about = {"name": name, "recipe": Path(runs[0].recipe).stem, "settings": runs[0].settings}
            finished = sum(run.status == "finished" for run in runs)
            combinations.append({**about, "runs": len(runs), "finished": finished, "figures": figures})
        return {"out": str(self.out), "combinations": combinations, "runs": [vars(run) for run in self.runs]}


@processes.joined()
def sweep(
    dataset: str | Path,
    *,
    out: str | Path,
    sweep: Mapping[str, Sequence[Any]] | Iterable[str] = (),
    seeds: int | Sequence[int] | None = None,
    recipe: str | Path | Sequence[str | Path] = "uscl",
    overrides: Iterable[str] = (),
    init_from: str | Path | None = None,
    dry_run: bool = False,
) -> SweepResult:
    """Pretrain with every combination of recipes, values and seeds; the same call goes on where an earlier one stopped.

    Args:
        dataset: A data set folder.
        out: Folder of the sweep; each run has one below it, named by what is varied.
        sweep: The values of each dotted key: `{"temperature": [0.1, 0.5]}`, or texts as on the command line, `temperature=0.1,0.5`.
        seeds: Seeds 0 to n - 1, or these; None: the recipe's.
        recipe: One or several, each a recipe's name or a YAML file.
        overrides: `key=value` settings of all runs.
        init_from: Weights that every run starts from.
        dry_run: Check everything, and write nothing.

    Returns:
        All runs of this sweep. One that failed does not stop the others.

    Raises:
        UserError: The input or a configuration is wrong; nothing is trained then.
        Stopped: A signal stopped the sweep; the run under way is saved.
    """
    if processes.world_size() > 1:
        raise UserError("a sweep", "is one process, and torchrun started several", "start its runs one by one: uscl pretrain SET --out RUN")
    out, overrides = Path(out), list(overrides)
    recipes = [recipe] if isinstance(recipe, str | Path) else list(recipe)
    values, chosen_seeds = _varied(sweep, seeds, overrides)
    if not values and chosen_seeds is None and len(recipes) < 2:
        raise UserError("a sweep", "needs something to vary", "give --sweep KEY=VALUE,VALUE, --seeds N, or several --recipe")
    with stop_signals("run the same command again") as stop:
        data = open_dataset(dataset)
        plans = _plans([str(each) for each in recipes], values, chosen_seeds, overrides)
        record = _record(out, data)
        settings = [[*overrides, *_texts(sets)] for _, sets, _ in plans]
        runs = [_checked(run, dataset, data, out, each, init_from) for (run, _, _), each in zip(plans, settings, strict=True)]
        say(_arithmetic(len(recipes), values, chosen_seeds, runs))
        if dry_run:
            return SweepResult(out, tuple(runs))
        asked = {"recipes": [Path(name).name for name in recipes], "overrides": overrides, "sweep": values, "seeds": chosen_seeds}
        listed = {
            run.name: {"recipe": Path(run.recipe).name, "settings": run.settings, "seed": run.seed, "config_digest": config.digest}
            for run, _, config in plans
        }
        write_json(out / SWEEP, {**record, "asked": asked, "runs": {**record["runs"], **listed}})
        for number, (run, each) in enumerate(zip(list(runs), settings, strict=True)):
            if run.status == "finished":
                continue
            say(f"run {number + 1} of {len(runs)}: {run.name}")
            try:
                resume = run.status == "begun"
                pretrain(dataset, out=out / run.name, recipe=run.recipe, overrides=each, resume=resume, init_from=init_from)
                runs[number] = replace(run, status="finished", figures=_figures(out / run.name))
            except UserError as error:
                say(f"failed: {run.name}: {safe_text(str(error))}")
                runs[number] = replace(run, status="failed", problem=str(error))
            except Stopped as stopped:
                where = f"the sweep was stopped in run {number + 1} of {len(runs)}, {run.name}"
                raise Stopped(f"{where} ({str(stopped).partition(':')[0]}): run the same command again") from None
            if stop.name is not None and number + 1 < len(runs):
                raise Stopped(f"the sweep was stopped by {stop.name} after run {number + 1} of {len(runs)}: run the same command again")
    return SweepResult(out, tuple(runs))


def read_values(text: str) -> tuple[str, list[Any]]:
    """The key and the values of `key=value,value`; values are YAML, so `[0.2, 1.0],[0.8, 1.0]` are two.

    Raises:
        RecipeError: It is no such text.
    """
    key, equals, listed = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--sweep {text}", "has no '='", "write --sweep key=value,value, for example --sweep temperature=0.1,0.5")
    try:
        values = yaml.safe_load(f"[{listed}]")
    except yaml.YAMLError:
        values = None
    if not isinstance(values, list):
        raise RecipeError(f"--sweep {text}", "the values are no YAML", "put commas between them, and those that hold commas in quotes")
    return key.strip(), values


def _varied(
    sweep: Mapping[str, Sequence[Any]] | Iterable[str], seeds: int | Sequence[int] | None, overrides: Sequence[str]
) -> tuple[dict[str, list[Any]], list[int] | None]:
    """The values of each key, in the order of the configuration whatever the order on the command line; and the seeds."""
    given = [(key, list(found)) for key, found in sweep.items()] if isinstance(sweep, Mapping) else [read_values(text) for text in sweep]
    values: dict[str, list[Any]] = {}
    for key, found in given:
        if key in values:
            raise RecipeError(f"--sweep {key}", "is given twice", "give all its values at once: key=value,value")
        if not found:
            raise RecipeError(f"--sweep {key}", "has no values", "write --sweep key=value,value")
        values[key] = found
    chosen = None if seeds is None else list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if chosen is not None and not chosen:
        raise UserError(f"--seeds {seeds}", "is none", "give 1 or more")
    if "seed" in values:
        if chosen is not None:
            raise RecipeError("--sweep seed", "and --seeds both choose the seeds", "give one of them")
        chosen = values.pop("seed")
    set_already = {override.partition("=")[0].strip() for override in overrides}
    for key in [*values, *([] if chosen is None else ["seed"])]:
        if key in set_already:
            raise RecipeError(f"--set {key}", "is varied by the sweep too", "leave it out")
    order = {key: place for place, key in enumerate(flat(Config().model_dump(mode="json")))}
    return dict(sorted(values.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))), chosen


def _configuration(recipe: str, overrides: Sequence[str], varied: Sequence[str]) -> Config:
    """That of one run; what is wrong with a value of the sweep is said of the sweep."""
    try:
        return load_config(recipe, [*overrides, *varied])
    except RecipeError as error:
        option, _, override = error.subject.partition(" ")
        if option == "--set" and override in varied:
            raise RecipeError(f"--sweep {override}", error.reason, error.advice) from None
        raise


def _plans(
    recipes: Sequence[str], values: Mapping[str, Sequence[Any]], seeds: Sequence[int] | None, overrides: Sequence[str]
) -> list[tuple[SweptRun, dict[str, Any], Config]]:
    """Each run, what is set for it (as given), and its configuration; recipes change slowest, seeds fastest."""
    plans: list[tuple[SweptRun, dict[str, Any], Config]] = []
    for recipe in recipes:
        for combination in itertools.product(*values.values()):
            for seed in seeds if seeds is not None else [None]:
                sets = dict(zip(values, combination, strict=True)) | ({} if seed is None else {"seed": seed})
                config = _configuration(recipe, overrides, _texts(sets))
                resolved = flat(config.model_dump(mode="json"))
                for key in sets:
                    if key not in resolved:
                        raise RecipeError(f"--sweep {key}", "is a whole section", "vary its keys, with dots: pairs.alpha=0.5,1.0")
                settings = {key: resolved[key] for key in values}
                parts = [f"recipe={_safe(Path(recipe).stem)}"] if len(recipes) > 1 else []
                parts += [f"{key}={_safe(_short(value))}" for key, value in settings.items()]
                about = _cut(",".join(parts))
                name = ",".join([*([about] if about else []), *([] if seed is None else [f"seed={config.seed}"])])
                run = SweptRun(name, about or Path(recipe).stem, recipe, settings, None if seed is None else config.seed)
                plans.append((run, sets, config))
    names = [run.name for run, _, _ in plans]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError("the sweep", f"has two runs named {twice}", "give each value, seed and recipe once")
    return plans


def _texts(sets: Mapping[str, Any]) -> list[str]:
    """Settings as overrides: values as YAML on one line."""
    return [f"{key}={yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]}" for key, value in sets.items()]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(_short(each) for each in value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _safe(text: str) -> str:
    """A part of a folder's name that no shell and no file system reads otherwise."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", text)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 9]}-{sha256_text(name)[:8]}"


def _record(out: Path, data: DataSet) -> dict[str, Any]:
    """What sweep.json says so far; a new one where there is none.

    Raises:
        UserError: The folder is something else, or a sweep over another data set.
    """
    about = {"sweep_version": SWEEP_VERSION, "dataset": {"name": data.name, "digest": data.digest}}
    if (out / run_folder.CONFIG).is_file() or (out / "dataset.json").is_file():
        kind = "run" if (out / run_folder.CONFIG).is_file() else "data set"
        raise UserError(out, f"is the folder of a {kind}", "give a sweep an --out of its own")
    path = out / SWEEP
    if not path.is_file():
        return {**about, "runs": {}}
    try:
        found = json.loads(path.read_bytes())
        runs, digest = dict(found["runs"]), found["dataset"]["digest"]
    except (ValueError, KeyError, TypeError):
        raise UserError(path, "is damaged", "delete it: the runs beside it are found by their names") from None
    if digest != data.digest:
        reason = f"holds a sweep over another data set (digest was {str(digest)[:16]}, is {data.digest[:16]})"
        raise UserError(out, reason, "give that data set, or another --out")
    return {**about, "runs": runs}


def _checked(run: SweptRun, dataset: str | Path, data: DataSet, out: Path, overrides: list[str], init_from: str | Path | None) -> SweptRun:
    """The run with its steps and how far it is.

    Raises:
        UserError: It could not start, or what stands in its folder has another configuration or data set.
    """
    folder = out / run.name
    begun = folder.is_dir() and any(folder.iterdir())
    with redirect_stderr(io.StringIO()):  # of many runs the facts are said as each starts
        planned = pretrain(dataset, out=folder, recipe=run.recipe, overrides=overrides, resume=begun, init_from=init_from, dry_run=True)
    run = replace(run, steps=planned.steps, status="begun" if begun else "planned")
    record = run_folder.read_run(folder)
    if record.get("status") != "finished" or not (folder / run_folder.EXPORT).is_dir():
        return run
    if record.get("dataset", {}).get("digest") != data.digest:
        raise UserError(folder, "was trained on another data set", "give that data set, or another --out")
    return replace(run, status="finished", figures=_figures(folder))


def _figures(folder: Path) -> dict[str, float]:
    """The last value of each figure."""
    found: dict[str, float] = {}
    for line in run_folder.read_metrics(folder):
        found |= {figure: float(line[figure]) for figure in FIGURES if figure in line and math.isfinite(line[figure])}
    return found


def _arithmetic(recipes: int, values: Mapping[str, Sequence[Any]], seeds: Sequence[int] | None, runs: Sequence[SweptRun]) -> str:
    factors = [f"{recipes} recipes"] if recipes > 1 else []
    factors += [f"{len(found)} of {key}" for key, found in values.items()]
    factors += [] if seeds is None else [f"{len(seeds)} seeds"]
    steps = [run.steps for run in runs]
    each = f"{steps[0]}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
    finished = sum(run.status == "finished" for run in runs)
    told = f"; {finished} finished already" if finished else ""
    return f"sweep: {' x '.join(factors)} = {len(runs)} runs of {each} steps, {sum(steps)} in all{told}"


def print_sweep(result: SweepResult, *, dry_run: bool = False) -> None:
    """Print a sweep on standard output: its runs where nothing was done, else each figure by combination.

    Args:
        result: Of `sweep`.
        dry_run: Whether it was one.
    """
    if dry_run:
        width = max(len(run.name) for run in result.runs)
        for run in result.runs:
            print(f"{run.name:{width}}  {run.steps} steps  {run.status}")
        return
    combinations = result.combinations()
    width = max(len(name) for name in combinations) + 2
    print(f"{'':{width}}  {'runs':>5}  {'mean':>8}  {'sd':>8}  {'min':>8}  {'max':>8}")
    for figure in FIGURES:
        spreads = {name: result.spread(name, figure) for name in combinations}
        if not any(spreads.values()):
            continue
        print(figure.replace("_", " "))
        for name, spread in spreads.items():
            finished = sum(run.figures is not None and figure in run.figures for run in combinations[name])
            numbers = ["-"] * 4 if spread is None else ["-" if each is None else f"{each:.4f}" for each in vars(spread).values()]
            print("  ".join([f"  {name}".ljust(width), f"{finished}/{len(combinations[name])}".rjust(5), *(n.rjust(8) for n in numbers)]))
    for run in result.failed:
        print(f"failed: {safe_text(run.name)}: {safe_text(run.problem or '')}")
    print("This table is no evaluation: its figures are of clips that were trained on, and losses of other settings have other scales.")
    print("To choose: uscl evaluate linear SET --weights RUN --weights RUN --out DIR, on patients set apart; then report on yet others.")
