"""The feed of a training run: batches of stored frames with everything that was drawn for them, on the device.

In come a store, an index and a configuration; out come `Batch` values in the order of epochs and batches. Any batch can be made without the
ones before it, so a run can go on from wherever it stopped, and threads may prepare the next ones while this one trains: what a batch
holds depends neither on them nor on where the store lies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from uscl.augment import Augmentations, draw_augmentations
from uscl.config import Config
from uscl.distributed import own_part
from uscl.field_of_view import video_boxes
from uscl.frames import FrameStore
from uscl.methods import Facts, find_method
from uscl.pairs import FramePairs, PairDrawer, VideoIndex, batches
from uscl.policies import share_something
from uscl.tiers import Placement, RowsAhead, place_store, read_into_memory
from uscl.views import VIEWS_A_PAIR, frames_augmented

_COPIED_AT_ONCE = 4096


@dataclass(frozen=True)
class Batch:
    """One step's material, on the device but for the video numbers: what is drawn, of this process' part; what is known, of the whole.

    Attributes:
        epoch: 0-based.
        number: 0-based in the epoch.
        of: Batches in the epoch.
        videos: (N,) video numbers.
        frames: (n, 3 P, S, S) uint8: x1, anchor, x3 of each of P pairs of views, of the n videos of `own_part(N)`; all N where there is one
            process.
        coefficients: (n, 2 P) mixing coefficients.
        augmentations: Parameters of every view (or frame, where frames are augmented before mixing).
        facts: What is known of the videos.
        meta: The batch that a method with `learns_first` learns from beside this one, or None.
    """

    epoch: int
    number: int
    of: int
    videos: np.ndarray
    frames: torch.Tensor
    coefficients: torch.Tensor
    augmentations: Augmentations
    facts: Facts
    meta: Self | None = None


class Feed:
    """Makes batches.

    Args:
        store: Decoded frames.
        index: The videos.
        config: The run's configuration.
        device: Where batches go.
        placement: Where the store is to lie; None = chosen here.

    Attributes:
        lookahead: Threads that prepare the next batches.

    Raises:
        UserError: The configured tier is impossible here.
    """

    def __init__(
        self, store: FrameStore, index: VideoIndex, config: Config, device: torch.device, placement: Placement | None = None
    ) -> None:
        self.store = store
        self.index = index
        self.config = config
        self.device = device
        self.drawer = PairDrawer(index, config.pairs)
        self._meta_wanted = find_method(config.method).learns_first
        self._meta_epoch: tuple[int, list[np.ndarray]] = (-1, [])
        self.boxes = video_boxes(store.boxes, index, store.size) if config.augment.crop_to == "field_of_view" else None
        self.placement = placement or place_store(config.store.tier, store.pixels.nbytes, device)
        self.on_device: torch.Tensor | None = None
        self.rows_ahead: RowsAhead | None = None
        if self.placement.tier == "gpu":
            self.on_device = torch.empty(store.pixels.shape, dtype=torch.uint8, device=device)
            for start in range(0, len(store.pixels), _COPIED_AT_ONCE):
                self.on_device[start : start + _COPIED_AT_ONCE] = torch.from_numpy(np.array(store.pixels[start : start + _COPIED_AT_ONCE]))
        elif self.placement.tier == "ram":
            read_into_memory(store.pixels)
        else:
            self.rows_ahead = RowsAhead(store.path, store.offset, store.size**2)
        self.lookahead = config.store.lookahead
        if self.lookahead is None:
            # On the CPU the network uses every core: preparing ahead would only take turns with it, unless there is a disk to wait for.
            self.lookahead = 1 if device.type != "cpu" or self.placement.tier == "disk" else 0

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """The video numbers of each batch of an epoch."""
        return batches(self.config.seed, epoch, self.index, self.config.batch_size, self.config.pairs.distinct_groups)

    def __call__(self, epoch: int, number: int) -> Iterator[Batch]:
        """All batches from this position to the end of the run."""
        if not self.lookahead:
            for place in self._positions(epoch, number):
                yield self.make(*place)
            return
        ahead: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self.lookahead, thread_name_prefix="feed") as pool:
            try:
                for place in self._positions(epoch, number):
                    ahead.append(pool.submit(self.make, *place))
                    # One batch more than there are threads, so that each finds work when it ends and memory stays bounded.
                    if len(ahead) > self.lookahead:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def make(self, epoch: int, number: int, of: int, videos: np.ndarray) -> Batch:
        """One batch: a pure function of the configuration and its arguments."""
        batch = self._make(epoch, number, of, videos)
        return replace(batch, meta=self.make_meta(epoch, number)) if self._meta_wanted else batch

    def make_meta(self, epoch: int, number: int) -> Batch:
        """The batch beside this one: of as many epochs later as the run has, so no step is taken on its pairs."""
        later = self.config.epochs + epoch
        known, batches_of_it = self._meta_epoch
        if known != later:
            batches_of_it = self.epoch_batches(later)
            self._meta_epoch = later, batches_of_it  # at once, for threads make batches side by side
        place = number % len(batches_of_it)
        return self._make(later, place, len(batches_of_it), batches_of_it[place])

    def _make(self, epoch: int, number: int, of: int, videos: np.ndarray) -> Batch:
        config = self.config
        whole = self.drawer(config.seed, epoch, videos)
        part = own_part(len(videos))
        own, drawn = videos[part], whole.of(part)
        views = frames_augmented(config) * self.drawer.pairs
        if self.rows_ahead is not None:
            self.rows_ahead(drawn.frame_rows)
        augmentations = draw_augmentations(
            config.augment,
            seed=config.seed,
            epoch=epoch,
            videos=own,
            views=views,
            store_size=self.store.size,
            boxes=self._boxes(own, drawn.partners, views),
        )
        return Batch(
            epoch=epoch,
            number=number,
            of=of,
            videos=videos,
            frames=self.read(drawn.frame_rows),
            coefficients=self._move(torch.from_numpy(drawn.coefficients.astype(np.float32))),
            augmentations=replace(augmentations, values=self._move(augmentations.values)),
            facts=self.facts(videos, whole),
        )

    def facts(self, videos: np.ndarray, drawn: FramePairs) -> Facts:
        """What is known of a batch's videos, and what was drawn for them."""
        index = self.index

        def moved(values: np.ndarray | None) -> torch.Tensor | None:
            return None if values is None else self._move(torch.from_numpy(values))

        return Facts(
            labels=self._move(torch.from_numpy(index.labels[videos])),
            groups=self._move(torch.from_numpy(index.groups[videos])),
            views=VIEWS_A_PAIR * self.drawer.pairs,
            same_group=moved(self._same_group(videos, drawn.partners)),
            pair_weights=moved(drawn.weights),
            keys=moved(None if index.keys is None else index.keys[videos]),
            hard=moved(drawn.hard),
            partner_labels=moved(None if drawn.partners is None else index.labels[drawn.partners]),
            partner_groups=moved(None if drawn.partners is None else index.groups[drawn.partners]),
        )

    def _same_group(self, videos: np.ndarray, partners: np.ndarray | None) -> np.ndarray | None:
        """(N, N) bool: which videos are no negatives of each other; None: all are."""
        pairs, groups = self.config.pairs, self.index.groups[videos]
        if partners is None:
            return groups[:, None] == groups if pairs.exclude_same_group else None
        assert self.index.keys is not None
        # With distinct groups the videos are of different ones, but a partner may be of another video's.
        kept_apart = pairs.distinct_groups or pairs.exclude_same_group
        return share_something(groups if kept_apart else None, self.index.groups[partners], self.index.keys[videos])

    def _boxes(self, videos: np.ndarray, partners: np.ndarray | None, views: int) -> np.ndarray | None:
        """What crops stay inside: of each video, or of each view where the last one is of another video."""
        if self.boxes is None:
            return None
        if partners is None:
            return self.boxes[videos]
        return np.stack([self.boxes[videos]] * (views - 1) + [self.boxes[partners]])

    def _positions(self, epoch: int, number: int) -> Iterator[tuple[int, int, int, np.ndarray]]:
        for each in range(epoch, self.config.epochs):
            videos = self.epoch_batches(each)
            for place in range(number if each == epoch else 0, len(videos)):
                yield each, place, len(videos), videos[place]

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Stored frames of these rows, (..., S, S) uint8 on the device."""
        if self.on_device is not None:
            return self.on_device[self._move(torch.from_numpy(rows))]
        return self._move(torch.from_numpy(self.store.pixels[rows]))

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()  # else the copy would wait for every step that the GPU has still to do
        return tensor.to(self.device, non_blocking=True)
