"""The sections of a training recipe, one for each part of a run: every key with its type, default, bounds and meaning.

Values come in from YAML and the command line; frozen, validated ones go out. `config.py` puts them together into a run's configuration.
Nothing heavy is imported here.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """What every part of a configuration shares: nothing can be changed afterwards, and nothing unknown is let in."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


# Keys of `pairs` that only these policies read.
_OF_POLICIES = {
    "max_distance_s": ("ppi", "within-seconds", "hard-negatives"),
    "max_distance_frames": ("ppi", "hard-negatives"),
    "min_distance_s": ("hard-negatives",),
    "min_distance_frames": ("hard-negatives",),
    "harder_over_epochs": ("hard-negatives",),
    "weights": ("within-seconds",),
}


class Pairs(Section):
    """Which frames of a video make the two views, and which videos share a batch."""

    policy: Literal["uscl", "same-frame", "ppi", "within-seconds", "hard-negatives", "same-column"] = "uscl"
    """`uscl`: any three frames, the second one the anchor of both views; `same-frame`: one frame twice (SimCLR); `ppi`: three frames in
    temporal order around the anchor (Meta-USCL's positive-pair interpolation); `within-seconds`: two frames at most `max_distance_s`
    apart (IVPP); `hard-negatives`: two near frames, and two far ones of the same video as negatives (UCL); `same-column`: a frame of the
    video and one of any video with the same value in `column`."""

    order: Literal["mix-then-augment", "augment-then-mix"] = "mix-then-augment"
    """The paper's figure mixes frames and augments the two mixed images; its published code augments each frame and then mixes."""

    coefficients: Literal["independent", "shared"] = "independent"
    """One mixing coefficient a view, or one for both (as in the published code)."""

    alpha: float = Field(default=0.5, gt=0, le=100)
    """First parameter of the Beta distribution of the mixing coefficients."""

    beta: float = Field(default=0.5, gt=0, le=100)
    """Second parameter of the Beta distribution of the mixing coefficients."""

    max_distance_s: float | None = Field(default=None, gt=0)
    """With `ppi`, `within-seconds` and `hard-negatives`: how many seconds a positive frame may lie away; null = no bound."""

    max_distance_frames: int | None = Field(default=None, ge=1)
    """Likewise in frames of the source video, with `ppi` and `hard-negatives`. With `hard-negatives` and neither bound: 3, as in UCL."""

    min_distance_s: float | None = Field(default=None, gt=0)
    """With `hard-negatives`: how many seconds a negative frame lies away at least, and farther than a positive may; null = no bound."""

    min_distance_frames: int | None = Field(default=None, ge=1)
    """Likewise in frames of the source video. With neither: a fifth of the video's length, as UCL's published code begins."""

    harder_over_epochs: int | None = Field(default=None, ge=1)
    """With `hard-negatives`: that fifth falls along half a cosine, over so many epochs, to 0.03 of the video's length; null = it stays."""

    weights: bool = False
    """With `within-seconds`: a pair d seconds apart weighs (D - d + 1) / (D + 1) with D = `max_distance_s` (IVPP)."""

    distinct_groups: bool = True
    """A batch never holds two videos of one group (patient, exam, copies of one scan), so no negative comes from the same patient."""

    exclude_same_group: bool = False
    """With `distinct_groups: false`: videos of one group may share a batch, but are no negatives of each other."""

    column: str | None = None
    """A column of the data set (`label`, `organ`, `view`, ...): videos with an equal value in it are positives of the method
    `supervised-contrast` and of the policy `same-column`. A video without a value has none but itself."""

    splits: tuple[Literal["train", "val", "test"], ...] = Field(default=("train",), min_length=1)
    """Which splits of the data set are trained on."""

    @model_validator(mode="after")
    def _settings_belong_to_the_policy(self) -> Self:
        for key, policies in _OF_POLICIES.items():
            if getattr(self, key) not in (None, False) and self.policy not in policies:
                listed = " or ".join([", ".join(policies[:-1]), policies[-1]] if len(policies) > 1 else policies)
                raise ValueError(f"pairs.{key} needs pairs.policy={listed}, and it is {self.policy}")
        needed = {"within-seconds": "max_distance_s", "same-column": "column"}.get(self.policy)
        if needed is not None and getattr(self, needed) is None:
            example = {"max_distance_s": "1.0", "column": "organ"}[needed]
            raise ValueError(f"pairs.policy={self.policy} needs pairs.{needed}: --set pairs.{needed}={example}")
        for unit in ("s", "frames"):
            most, least = getattr(self, f"max_distance_{unit}"), getattr(self, f"min_distance_{unit}")
            if most is not None and least is not None and least <= most:
                raise ValueError(f"pairs.min_distance_{unit} is {least:g}, and must be above pairs.max_distance_{unit} ({most:g})")
        if self.harder_over_epochs is not None and (self.min_distance_s is not None or self.min_distance_frames is not None):
            given = "min_distance_s" if self.min_distance_s is not None else "min_distance_frames"
            raise ValueError(f"pairs.harder_over_epochs moves a distance of its own: --set pairs.{given}=null")
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


class Projector(Section):
    """The head that the loss is taken on: linear layers with ReLU between them; it is left behind after the training."""

    layers: int = Field(default=2, ge=0, le=8)
    """Linear layers; 0 = the loss is taken on the backbone's features."""

    hidden: int = Field(default=512, ge=1)
    """Length of the vectors between them."""

    width: int = Field(default=256, ge=1)
    """Length of a projection."""

    batch_norm: bool = False
    """BatchNorm before each ReLU, as in Barlow Twins and VICReg."""


class MoCo(Section):
    """The momentum encoder and its queue."""

    momentum: float = Field(default=0.999, ge=0, lt=1)
    """Share of the momentum encoder's weights that stays at each step."""

    queue: int = Field(default=4096, ge=1)
    """Keys of earlier batches that are negatives. MoCo's is 65,536, for a set of 1.3 million images."""


class BarlowTwins(Section):
    """The weights of the loss."""

    off_diagonal: float = Field(default=0.0051, gt=0)
    """Weight of the redundancy between components (the paper's lambda)."""

    scale: float = Field(default=1.0, gt=0)
    """The whole loss is multiplied by this, which LARS does not see but where it steps like SGD: on biases and normalisation."""


class VICReg(Section):
    """The weights of the loss's three terms."""

    invariance: float = Field(default=25.0, ge=0)
    """Of the squared distance between the two views."""

    variance: float = Field(default=25.0, ge=0)
    """Of the hinge on each component's standard deviation."""

    covariance: float = Field(default=1.0, ge=0)
    """Of the covariances between components."""


class MetaWeights(Section):
    """The small network that weights pairs, and how it learns."""

    hidden: int = Field(default=10, ge=1)
    """Units of its hidden layer."""

    inner_rate: float | None = Field(default=None, gt=0)
    """Rate of the step of a copy that it learns from; null = the run's learning rate at that step."""

    rate: float | None = Field(default=None, gt=0)
    """Its own learning rate, the same at every step; null = the run's at that step."""


class HiCo(Section):
    """The levels that are contrasted."""

    softening: float = Field(default=0.2, ge=0, lt=1)
    """Share of each target that is spread evenly over the negatives; the positive keeps the rest."""

    cross_weight: float = Field(default=1.0, ge=0)
    """Weight of the contrast of the global level with the other two, beside that within the three levels; 0 = none."""


class DINO(Section):
    """The teacher and its targets."""

    prototypes: int = Field(default=4096, ge=2)
    """Components of the distributions that are compared. The paper's is 65,536, for a set of 1.3 million images."""

    teacher_momentum: float = Field(default=0.996, ge=0, le=1)
    """Share of the teacher's weights that stays at each step; smaller batches want more."""

    momentum_schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine`: that share rises to 1 over the run, along half a cosine; `constant`: it stays."""

    teacher_temperature: float = Field(default=0.04, gt=0)
    """Temperature of the targets; the student's is `temperature`."""

    centre_momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the targets' centre that stays at each step."""

    frozen_epochs: float = Field(default=1.0, ge=0)
    """The prototypes stay as they began for so many epochs."""


class Labels(Section):
    """What is done with the labels of those videos that have one."""

    weight: float = Field(default=0.2, ge=0)
    """Weight of each view's cross-entropy beside the contrastive loss; 0 = labels are not used."""

    classifier_on: Literal["features", "projections"] = "features"
    """What the classifier reads: the backbone's features (the paper's figure) or the projector's output (its published code)."""

    share: float = Field(default=1.0, ge=0, le=1)
    """Share of the labelled videos whose labels are used, by whole groups: each label keeps about its share, and one group at least where
    it has one. A larger share contains a smaller one."""

    seed: int | None = Field(default=None, ge=0, lt=2**64)
    """What the share is drawn with; null = the run's `seed`."""

    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the cross-entropy weighs each class in inverse proportion to its videos among those whose labels are used."""
