"""The learning rate at every step of a run: a pure function of the configuration and the position, so a resume needs nothing of it."""

from __future__ import annotations

import math

from uscl.config import Config


def learning_rate(config: Config, epoch: float, step: float = 0.0) -> float:
    """The learning rate of the step that begins at a moment of the run.

    A linear warm-up (Goyal et al. 2017: Accurate, large minibatch SGD) reaches the full rate with its last step; the rate is constant until
    epoch `constant_epochs`, and then falls along half a cosine (Loshchilov and Hutter 2017: SGDR).

    Args:
        config: The run's configuration.
        epoch: Epochs done, with the fraction of the present one.
        step: The step's length in epochs.
    """
    schedule = config.schedule
    if epoch < schedule.warmup_epochs:
        return config.learning_rate * min(1.0, (epoch + step) / schedule.warmup_epochs)
    constant = max(schedule.constant_epochs, schedule.warmup_epochs)
    constant = constant if constant < config.epochs else schedule.warmup_epochs
    if schedule.name == "constant" or epoch < constant:
        return config.learning_rate
    done = (epoch - constant) / (schedule.cosine_epochs or config.epochs - constant)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
