"""How a run makes its network smaller."""

from dataclasses import dataclass
from typing import Literal

from jaxnets.schema import AboveZeroToOne, Count

METHODS = ("magnitude", "channels", "qat")


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """What `python -m jaxnets.compress` makes of a trained network; `layers` and what follows are of magnitude."""

    # magnitude: single weights become zero, and stay so, while the run trains; channels: whole ones were cut before it
    # began; qat: it computes as it would in 8 bits, which was prepared likewise; None: nothing is made smaller.
    method: Literal["magnitude", "channels", "qat"] | None = None
    keep: AboveZeroToOne = 0.5  # magnitude: share of the weights that stay; channels: share of the multiply-adds
    # Of which layers weights are taken. adaptive: those that change their layer least (LAMP, Lee et al. 2021), wherever
    # they lie; uniform: the smallest of each layer, the same share of all (Zhu & Gupta 2017).
    layers: Literal["adaptive", "uniform"] = "adaptive"
    ramp: AboveZeroToOne = 0.5  # share of the run at which the last weights are taken
    every_steps: Count | None = None  # from one pruning to the next; None: 25 times in the ramp
