"""The configuration of a pretraining run: typed, validated, and complete in one value.

In comes the name of a recipe (or a YAML file) and `a.b=c` overrides; out comes a frozen `Config`. A misspelt key or a wrong value is one
line that names the key and what is allowed. The defaults are the settings that USCL's paper and its published code share; where those two
disagree, they are the paper's figure. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from uscl.sections import (
    DINO,
    Augment,
    Average,
    BarlowTwins,
    Checkpoint,
    HiCo,
    Labels,
    MetaWeights,
    MoCo,
    Optimizer,
    Pairs,
    Probe,
    Projector,
    Schedule,
    Section,
    Store,
    VICReg,
)
from usdata.errors import RecipeError, UserError, nearest
from usdata.files import canonical_json, sha256_text

# torchvision's networks, of which torch need not be loaded to know the names; `timm/NAME` is any network of timm.
BACKBONES = ("resnet18", "resnet34", "resnet50")
TIMM = "timm/"


def _off(value: Any) -> Any:
    """YAML reads the bare word off as false."""
    return "off" if value is False else value


class Config(Section):
    """A pretraining run."""

    method: str = "uscl"
    """The training method: one of `uscl.methods.METHODS`, or a class of your own as `module:Class`, found from the working folder."""

    backbone: str = "resnet18"
    """The network that is pretrained: resnet18, resnet34, resnet50, or any network of timm as `timm/NAME`."""

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

    projector: Projector = Projector()
    """The head between the backbone's features and the loss."""

    moco: MoCo = MoCo()
    """Of methods with a momentum encoder and a queue."""

    barlow_twins: BarlowTwins = BarlowTwins()
    """Of Barlow Twins."""

    vicreg: VICReg = VICReg()
    """Of VICReg."""

    meta: MetaWeights = MetaWeights()
    """Of Meta-USCL."""

    hico: HiCo = HiCo()
    """Of HiCo."""

    dino: DINO = DINO()
    """Of DINO."""

    own: dict[str, Any] = Field(default_factory=dict)
    """Settings of a method of your own, which reads and checks them itself: `--set own.margin=0.2`."""

    tensorboard: Annotated[Literal["auto", "off"], BeforeValidator(_off)] = "auto"
    """`auto`: the figures of `metrics.jsonl` go to `tensorboard/` too where TensorBoard is installed."""

    @field_validator("backbone")
    @classmethod
    def _backbone_is_known(cls, name: str) -> str:
        if name.startswith(TIMM):
            from uscl.backbones import timm_config

            try:
                timm_config(name)
            except UserError as error:
                raise ValueError(str(error)) from None
        elif name not in BACKBONES:
            raise ValueError(f"backbone '{name}' is not known; {nearest(name, BACKBONES)} (or a network of timm: {TIMM}NAME)")
        return name

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
    set_here: dict[str, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise RecipeError(f"--set {override}", "has no '='", "write --set key=value, for example --set batch_size=64")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RecipeError(f"--set {override}", "the value is no YAML", "put it in quotes") from None
        _put(settings, key.strip(), parsed)
        set_here[key.strip()] = override
    return make_config(settings, name, set_here)


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
        raise RecipeError(name, f"is no readable YAML ({reason})", "mend the file; one that works: uscl recipes uscl") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise RecipeError(name, "must hold keys and values", "copy one that works: uscl recipes uscl")
    return settings


def make_config(settings: dict[str, Any], name: str, set_here: Mapping[str, str] | None = None) -> Config:
    """Validate settings.

    Args:
        settings: Keys and values, nested.
        name: What messages call them.
        set_here: By dotted key what was set beside them on the command line, to be blamed for what is wrong with it.

    Raises:
        RecipeError: The first thing that is wrong with them, in one line.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise _recipe_error(error, name, set_here or {}) from None


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


def _recipe_error(error: ValidationError, name: str, set_here: Mapping[str, str]) -> RecipeError:
    """The first problem of a validation as one line: key, value, what is allowed."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    wrong = next(
        (override for own, override in set_here.items() if f"{key}.".startswith(f"{own}.") or f"{own}.".startswith(f"{key}.")), None
    )
    subject, is_wrong = (f"{name}: {key}", "is") if wrong is None or not path else (f"--set {wrong}", f"'{key}' is")
    if problem["type"] == "extra_forbidden":
        section = _section(path[:-1])
        known = [".".join([*path[:-1], field]) for field in section.model_fields]
        return RecipeError(subject, f"{is_wrong} no key of a training recipe", nearest(key, known))
    if problem["type"] == "value_error" and "ctx" in problem:
        reason, _, advice = str(problem["ctx"]["error"]).partition("; ")
        return RecipeError(name, reason, advice or "mend it in the recipe, or with --set")
    message = problem["msg"][0].lower() + problem["msg"][1:]
    allowed = _allowed(path)
    return RecipeError(subject, f"{is_wrong} {problem['input']!r}: {message}", f"allowed: {allowed}" if allowed else "")


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
