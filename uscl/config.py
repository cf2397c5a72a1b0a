"""The configuration of a pretraining run: typed, validated, and complete in one value.

In comes the name of a recipe (or a YAML file) and `a.b=c` overrides; out comes a frozen `Config`. A misspelt key or a wrong value is one
line that names the key and what is allowed. The defaults are the settings that USCL's paper and its published code share; where those two
disagree, they are the paper's figure. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from usdata.errors import RecipeError, nearest
from usdata.files import canonical_json, sha256_text


class Section(BaseModel):
    """What every part of a configuration shares: nothing can be changed afterwards, and nothing unknown is let in."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def _off(value: Any) -> Any:
    """YAML reads the bare word off as false."""
    return "off" if value is False else value


class Pairs(Section):
    """Which frames of a video make the two views, and which videos share a batch."""

    policy: Literal["uscl", "same-frame", "ppi"] = "uscl"
    """`uscl`: any three frames, the second one the anchor of both views; `same-frame`: one frame twice (SimCLR); `ppi`: three frames in
    temporal order around the anchor (Meta-USCL's positive-pair interpolation)."""

    order: Literal["mix-then-augment", "augment-then-mix"] = "mix-then-augment"
    """The paper's figure mixes frames and augments the two mixed images; its published code augments each frame and then mixes."""

    coefficients: Literal["independent", "shared"] = "independent"
    """One mixing coefficient a view, or one for both (as in the published code)."""

    alpha: float = Field(default=0.5, gt=0, le=100)
    """First parameter of the Beta distribution of the mixing coefficients."""

    beta: float = Field(default=0.5, gt=0, le=100)
    """Second parameter of the Beta distribution of the mixing coefficients."""

    max_distance_s: float | None = Field(default=None, gt=0)
    """With `ppi`: how many seconds a frame may lie from the anchor; null = no bound."""

    max_distance_frames: int | None = Field(default=None, ge=1)
    """With `ppi`: how many frames of the source video a frame may lie from the anchor; null = no bound."""

    distinct_groups: bool = True
    """A batch never holds two videos of one group (patient, exam, copies of one scan), so no negative comes from the same patient."""

    exclude_same_group: bool = False
    """With `distinct_groups: false`: videos of one group may share a batch, but are no negatives of each other."""

    splits: tuple[Literal["train", "val", "test"], ...] = Field(default=("train",), min_length=1)
    """Which splits of the data set are trained on."""

    @model_validator(mode="after")
    def _distances_belong_to_ppi(self) -> Self:
        if self.policy != "ppi" and (self.max_distance_s is not None or self.max_distance_frames is not None):
            raise ValueError("pairs.max_distance_s and pairs.max_distance_frames need pairs.policy=ppi")
        return self


class Augment(Section):
    """How each view is changed, with parameters of its own."""

    scale: tuple[float, float] = (0.8, 1.0)
    """Share of the area that the random crop keeps, smallest and largest."""

    ratio: tuple[float, float] = (0.8, 1.25)
    """Width over height of the random crop, smallest and largest; drawn evenly in its logarithm."""

    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of mirroring left to right."""

    vertical_flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of mirroring top to bottom."""

    brightness: float = Field(default=0.8, ge=0, le=1)
    """Gray levels are multiplied by 1 plus or minus up to this. (Hue and saturation jitter change nothing on gray frames.)"""

    contrast: float = Field(default=0.8, ge=0, le=1)
    """Distances from the mean gray level are multiplied by 1 plus or minus up to this."""

    blur: float = Field(default=0.0, ge=0, le=1)
    """Probability of a Gaussian blur."""

    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of that blur in pixels of the view, smallest and largest."""

    crop_to: Literal["picture", "field_of_view"] = "picture"
    """What crops are drawn from: the whole stored picture, or the box of the video's field of view (the union over its frames; the whole
    picture where none is known). Scale and ratio are then of the box, as if the picture had been cut to it and stretched to a square."""

    path: Literal["auto", "plain", "fast"] = "auto"
    """How views are computed: `plain` by torch alone, which says what is right; `fast` by OpenCV on the CPU and Triton on a GPU, equal to
    it within 1e-3 of a normalised gray level; `auto`: fast where that runs."""

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        bounds = (("scale", self.scale, 0.01, 1.0), ("ratio", self.ratio, 0.1, 10.0), ("blur_sigma", self.blur_sigma, 0.01, 10.0))
        for name, (low, high), least, most in bounds:
            if not least <= low <= high <= most:
                raise ValueError(f"augment.{name} is [{low}, {high}]; allowed are two numbers from {least} to {most}, the smaller first")
        return self


class Store(Section):
    """The store of decoded frames."""

    size: int | None = Field(default=None, ge=8, le=2048)
    """Height and width of the stored frames in pixels; null = `image_size`."""

    folder: str | None = None
    """Where stores lie; null = `.cache` in the data set, or the user's cache folder where that cannot be written."""

    tier: Literal["auto", "disk", "ram", "gpu"] = "auto"
    """Where frames lie in training; `auto`: on the GPU, else in memory, where they fit beside the rest, else on disk."""

    lookahead: int | None = Field(default=None, ge=0, le=8)
    """Threads that prepare the next batches; null = 1 on a GPU or with frames on disk, else 0."""

    verify: Literal["auto", "whole", "never"] = "auto"
    """How an existing store is checked by its hashes: `auto`: some blocks, and all where the file was touched since; `whole`; `never`."""


class Optimizer(Section):
    """How gradients become steps."""

    name: Literal["adam", "adamw", "sgd", "lars"] = "adam"
    """`adam`: as USCL (its weight decay is an L2 penalty); `adamw`: decay apart from the gradient; `sgd` and `lars`: with momentum."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's and AdamW's averages: shares of the past kept for the gradient and for its square."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of `sgd` and `lars`."""

    trust: float = Field(default=0.001, gt=0)
    """The trust coefficient of `lars`."""

    decay_all: bool = True
    """Weight decay on biases and normalisation too, as in the published code; false: on weights with two axes and more alone."""

    clip_norm: float | None = Field(default=None, gt=0)
    """Gradients are scaled down to this norm where theirs is greater; null = never."""

    @model_validator(mode="after")
    def _betas_are_shares(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas is {list(self.betas)}; allowed are two numbers from 0 to below 1")
        return self


class Average(Section):
    """A moving average of the weights, which is then exported in their place."""

    decay: float | None = Field(default=None, gt=0, lt=1)
    """Share of the average that stays at each step (0.99 to 0.9999); null = no average."""


class Schedule(Section):
    """How the learning rate changes."""

    warmup_epochs: float = Field(default=0, ge=0)
    """The rate rises from zero over so many epochs."""

    name: Literal["cosine", "constant"] = "cosine"
    """`cosine`: constant at first, then half a cosine down to zero; `constant`: always the same."""

    constant_epochs: int = Field(default=10, ge=0)
    """Epochs at the full learning rate before the cosine starts; a run with no more epochs than this starts it at once."""

    cosine_epochs: int | None = Field(default=None, ge=1)
    """Epochs from the full learning rate to zero; null = all that are left. (The published code takes as many as the whole run, so that the
    run ends before the cosine does.)"""


class Checkpoint(Section):
    """When the run is saved and logged."""

    every_epochs: int = Field(default=5, ge=1)
    """`checkpoints/last` is written after every so many epochs, at the end, and when a signal stops the run; the one before it stays as
    `checkpoints/previous`."""

    every_minutes: float | None = Field(default=None, gt=0)
    """`checkpoints/last` is written after so many minutes without one, too; null = by epochs alone."""

    keep_every_steps: int | None = Field(default=None, ge=1)
    """A numbered checkpoint is kept after every so many steps; null = none."""

    keep_last: int | None = Field(default=None, ge=1)
    """How many numbered checkpoints are kept, the newest ones; null = all."""

    best: str | None = Field(default=None, pattern="^[a-z0-9_]+$")
    """`checkpoints/best` holds the weights with the best value of this figure of `metrics.jsonl`, such as `loss` (its mean over
    `every_epochs` epochs) or `knn_accuracy` (as measured in the epoch that has just ended); null = none is kept."""

    best_is: Literal["auto", "lowest", "highest"] = "auto"
    """Which value of it is the best; `auto`: the highest of an accuracy, the lowest of anything else."""

    log_every_steps: int = Field(default=10, ge=1)
    """A line is added to `metrics.jsonl` after every so many steps."""


class Probe(Section):
    """The look at the features of a few frames while training: nearest neighbours on labelled groups, and the rank. It is no evaluation."""

    every_epochs: int | None = Field(default=10, ge=0)
    """The probe looks after every so many epochs, and at the end; 0 or null = never."""

    frames_per_video: int = Field(default=4, ge=1)
    """Frames of a video that are looked at, evenly spaced."""

    max_frames: int = Field(default=2048, ge=2)
    """Frames that are looked at in all; where there are more, some of the videos are taken."""

    k: int = Field(default=20, ge=1)
    """Nearest neighbours that vote."""


class Labels(Section):
    """What is done with the labels of those videos that have one."""

    weight: float = Field(default=0.2, ge=0)
    """Weight of each view's cross-entropy beside the contrastive loss; 0 = labels are not used."""

    classifier_on: Literal["features", "projections"] = "features"
    """What the classifier reads: the backbone's features (the paper's figure) or the projector's output (its published code)."""


class Config(Section):
    """A pretraining run."""

    method: str = "uscl"
    """The training method, one of `uscl.methods.METHODS`."""

    backbone: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"
    """The network that is pretrained."""

    epochs: int = Field(default=300, ge=1)
    """Passes over the videos; an epoch takes one pair from each video."""

    batch_size: int = Field(default=32, ge=1)
    """Videos in a batch; each gives two views."""

    micro_batch_size: int | None = Field(default=None, ge=1)
    """Videos of a batch that pass the network at once, where memory is short; null = all. The loss and its gradient stay those of the whole
    batch, for a second forward pass; BatchNorm normalises by each part."""

    image_size: int = Field(default=224, ge=8, le=1024)
    """Height and width of a view in pixels."""

    learning_rate: float = Field(default=3e-4, gt=0)
    """The full learning rate; `schedule` says when it is reached and left."""

    weight_decay: float = Field(default=1e-4, ge=0)
    """Adam's and SGD's L2 penalty, AdamW's decay."""

    temperature: float = Field(default=0.5, gt=0)
    """Temperature of the contrastive loss."""

    seed: int = Field(default=0, ge=0, lt=2**64)
    """Every random number of the run follows from it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; `auto`: the GPU where there is one."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the network computes in; `auto`: bfloat16 on a GPU, float32 on the CPU. Losses are always float32."""

    compile: Annotated[Literal["off", "model", "step"], BeforeValidator(_off)] = "off"
    """What torch.compile makes faster code of: nothing; the network with its loss; or all from stored frames to the loss. It pays on a GPU,
    after a minute's wait."""

    channels_last: bool | None = None
    """Store the network's tensors with channels last; null: where it computes in bfloat16."""

    cuda_graph: bool | None = None
    """Record the step in a CUDA graph, which takes the place of thousands of launches; null: on a GPU, with up to 64 videos a batch."""

    sync_batchnorm: bool = False
    """With several processes: BatchNorm normalises by the whole batch, as one process would, and not by each process' own videos."""

    pairs: Pairs = Pairs()
    """Which frames make the two views."""

    augment: Augment = Augment()
    """How each view is changed."""

    store: Store = Store()
    """The store of decoded frames."""

    optimizer: Optimizer = Optimizer()
    """How gradients become steps."""

    average: Average = Average()
    """A moving average of the weights."""

    schedule: Schedule = Schedule()
    """How the learning rate changes."""

    checkpoint: Checkpoint = Checkpoint()
    """When the run is saved and logged."""

    probe: Probe = Probe()
    """The look at the features of a few frames while training."""

    labels: Labels = Labels()
    """What is done with labels."""

    tensorboard: Annotated[Literal["auto", "off"], BeforeValidator(_off)] = "auto"
    """`auto`: the figures of `metrics.jsonl` go to `tensorboard/` too where TensorBoard is installed."""

    @property
    def store_size(self) -> int:
        """Height and width of the stored frames in pixels."""
        return self.store.size or self.image_size

    @property
    def digest(self) -> str:
        """The sha256 of the configuration: equal digests, equal settings."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))


def load_config(recipe: str | Path, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a named recipe or a YAML file, with overrides.

    Args:
        recipe: A name of `recipe_names()`, or the path of a YAML file.
        overrides: `key=value`, with dots in the key for sections and the value read as YAML: `batch_size=64`, `pairs.policy=ppi`.

    Raises:
        RecipeError: No such recipe, no readable YAML, an unknown key, or a value that is not allowed.
    """
    text, name = _recipe_text(recipe)
    settings = read_settings(text, name)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise RecipeError(f"--set {override}", "has no '='", "write --set key=value, for example --set batch_size=64")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RecipeError(f"--set {override}", "the value is no YAML", "put it in quotes") from None
        _put(settings, key.strip(), parsed)
    return make_config(settings, name)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("uscl") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML of a recipe that comes with the package.

    Raises:
        RecipeError: There is none of this name.
    """
    names = recipe_names()
    if name not in names:
        raise RecipeError(f"recipe '{name}'", "is not known", f"{nearest(name, names)} (or give a YAML file)")
    return (resources.files("uscl") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def read_settings(text: str, name: str) -> dict[str, Any]:
    """The mapping in a YAML text.

    Raises:
        RecipeError: It is no YAML, or no mapping.
    """
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).replace("\n", " ")
        raise RecipeError(name, f"is no readable YAML ({reason})") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise RecipeError(name, "must hold keys and values", "copy one that works: uscl recipes uscl")
    return settings


def make_config(settings: dict[str, Any], name: str) -> Config:
    """Validate settings.

    Raises:
        RecipeError: The first thing that is wrong with them, in one line.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise _recipe_error(error, name) from None


def config_yaml(config: Config) -> str:
    """The whole configuration as YAML, in the order of the classes above; `load_config` reads it back to the same value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(old: Config, new: Config) -> list[str]:
    """The dotted keys in which two configurations differ, each with both values."""
    before, after = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    return [f"{key} (was {before.get(key)}, is {after.get(key)})" for key in before | after if before.get(key) != after.get(key)]


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def _recipe_text(recipe: str | Path) -> tuple[str, str]:
    path = Path(recipe)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        return recipe_text(str(recipe)), f"recipe '{recipe}'"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})", "see 'uscl recipes'") from None


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; that it exists is for the validation to say, with the dotted path."""
    *sections, last = key.split(".")
    for section in sections:
        inner = settings.get(section)
        settings[section] = dict(inner) if isinstance(inner, dict) else {}
        settings = settings[section]
    settings[last] = value


def _recipe_error(error: ValidationError, name: str) -> RecipeError:
    """The first problem of a validation as one line: key, value, what is allowed."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        section = _section(path[:-1])
        known = [".".join([*path[:-1], field]) for field in section.model_fields]
        return RecipeError(f"{name}: {key}", "is no key of a training recipe", nearest(key, known))
    if problem["type"] == "value_error" and "ctx" in problem:
        return RecipeError(name, str(problem["ctx"]["error"]))
    message = problem["msg"][0].lower() + problem["msg"][1:]
    allowed = _allowed(path)
    return RecipeError(f"{name}: {key}", f"is {problem['input']!r}: {message}", f"allowed: {allowed}" if allowed else "")


def _section(path: list[str]) -> type[Section]:
    section: type[Section] = Config
    for part in path:
        kind = section.model_fields[part].annotation
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            break
        section = kind
    return section


def _allowed(path: list[str]) -> str:
    """What the field of a dotted path takes, where its type says so in a few words."""
    field = _section(path[:-1]).model_fields.get(path[-1])
    if field is None:
        return ""
    kind = field.annotation
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    choices = [choice for choice in get_args(kind) if isinstance(choice, str)]
    if choices:
        return ", ".join(choices)
    if get_origin(kind) is tuple:
        return "two numbers, the smaller first: [low, high]" if len(get_args(kind)) == 2 and float in get_args(kind) else "a list"
    kinds = get_args(kind) or (kind,)
    words = " or ".join(names[each] for each in kinds if each in names)
    symbols = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{symbol} {getattr(rule, name)}" for rule in field.metadata for name, symbol in symbols.items() if hasattr(rule, name)]
    return " ".join([words, " and ".join(bounds)]).strip()
