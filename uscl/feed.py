"""The feed of a training run: batches of stored frames with everything that was drawn for them, on the device.

In come a store, an index and a configuration; out come `Batch` values in the order of epochs and batches. Any batch can be made without the
ones before it, so a run can go on from wherever it stopped. On a GPU the next batch is prepared by one thread while this one trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from uscl.augment import Augmentations, draw_augmentations
from uscl.config import Config
from uscl.distributed import own_part
from uscl.frames import FrameStore
from uscl.pairs import PairDrawer, VideoIndex, batches

# Of the GPU's free memory, how much the frames may take; the rest is for the network.
_STORE_SHARE_OF_GPU = 0.4


@dataclass(frozen=True)
class Batch:
    """One step's material, on the device but for the video numbers: what is drawn, of this process' part; what is known, of the whole.

    Attributes:
        epoch: 0-based.
        number: 0-based in the epoch.
        of: Batches in the epoch.
        videos: (N,) video numbers.
        frames: (n, 3, S, S) uint8: x1, anchor, x3, of the n videos of `own_part(N)`; all N where there is one process.
        coefficients: (n, 2) mixing coefficients.
        augmentations: Parameters of every view (or frame, where frames are augmented before mixing).
        labels: (N,) int64, -1 = unlabelled.
        same_group: (N, N) bool where negatives of one group are left out, else None.
    """

    epoch: int
    number: int
    of: int
    videos: np.ndarray
    frames: torch.Tensor
    coefficients: torch.Tensor
    augmentations: Augmentations
    labels: torch.Tensor
    same_group: torch.Tensor | None


class Feed:
    """Makes batches.

    Args:
        store: Decoded frames.
        index: The videos.
        config: The run's configuration.
        device: Where batches go.
    """

    def __init__(self, store: FrameStore, index: VideoIndex, config: Config, device: torch.device) -> None:
        self.store = store
        self.index = index
        self.config = config
        self.device = device
        self.drawer = PairDrawer(index, config.pairs)
        self.on_device: torch.Tensor | None = None
        if device.type == "cuda" and store.pixels.nbytes < _STORE_SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]:
            self.on_device = torch.empty(store.pixels.shape, dtype=torch.uint8, device=device)
            for start in range(0, len(store.pixels), 4096):
                self.on_device[start : start + 4096] = torch.from_numpy(np.array(store.pixels[start : start + 4096]))

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """The video numbers of each batch of an epoch."""
        return batches(self.config.seed, epoch, self.index, self.config.batch_size, self.config.pairs.distinct_groups)

    def __call__(self, epoch: int, number: int) -> Iterator[Batch]:
        """All batches from this position to the end of the run."""
        if self.device.type == "cpu":
            # The network uses every core, so that preparing ahead would only take turns with it.
            for place in self._positions(epoch, number):
                yield self.make(*place)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for place in self._positions(epoch, number):
                following = pool.submit(self.make, *place)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def make(self, epoch: int, number: int, of: int, videos: np.ndarray) -> Batch:
        """One batch: a pure function of the configuration and its arguments."""
        config = self.config
        own = own_part(len(videos))
        drawn = self.drawer(config.seed, epoch, videos[own])
        views = 2 if config.pairs.order == "mix-then-augment" else 3
        augmentations = draw_augmentations(
            config.augment,
            seed=config.seed,
            epoch=epoch,
            videos=videos,
            views=views,
            store_size=self.store.size,
        )
        # Drawn for the whole batch and cut, for the width of the blur's kernel is that of the batch's widest.
        values = augmentations.values.unflatten(1, (views, len(videos)))[:, :, own].flatten(1)
        groups = torch.from_numpy(self.index.groups[videos])
        same_group = groups[:, None] == groups if config.pairs.exclude_same_group else None
        return Batch(
            epoch=epoch,
            number=number,
            of=of,
            videos=videos,
            frames=self._frames(drawn.frame_rows),
            coefficients=self._move(torch.from_numpy(drawn.coefficients.astype(np.float32))),
            augmentations=replace(augmentations, values=values).to(self.device),
            labels=self._move(torch.from_numpy(self.index.labels[videos])),
            same_group=None if same_group is None else self._move(same_group),
        )

    def _positions(self, epoch: int, number: int) -> Iterator[tuple[int, int, int, np.ndarray]]:
        for each in range(epoch, self.config.epochs):
            videos = self.epoch_batches(each)
            for place in range(number if each == epoch else 0, len(videos)):
                yield each, place, len(videos), videos[place]

    def _frames(self, rows: np.ndarray) -> torch.Tensor:
        if self.on_device is not None:
            return self.on_device[torch.from_numpy(rows).to(self.device)]
        return self._move(torch.from_numpy(self.store.pixels[rows]))

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, non_blocking=True)
