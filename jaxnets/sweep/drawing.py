"""How a range test is drawn."""

from typing import TYPE_CHECKING

import numpy as np

from jaxnets import figures
from jaxnets.sweep.range_test import RangeTest
from jaxnets.sweep.rules import smoothed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_range(found: RangeTest, title: str) -> "Figure":
    """Returns the loss over the rate, its average, and a line where each rule points."""
    figure = figures.new_figure(1.5 * figures.WIDTH, 1.1 * figures.HEIGHT)
    average = smoothed(found.losses)
    with figures.style():
        axes = figure.add_subplot()
        axes.plot(found.rates, found.losses, color=figures.GREY, linewidth=0.8, alpha=0.7, label="each batch")
        axes.plot(found.rates, average, color=figures.BLUE, label="average so far")
        for colour, (rule, rate) in zip(figures.COLOURS[1:], found.suggestions.items(), strict=False):
            if rate is not None:
                axes.axvline(rate, color=colour, linestyle="--", linewidth=1.1, label=f"{rule}: {rate:.2g}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate at its peak")
        axes.set_ylabel("training loss")
        axes.set_title(title)
        axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        losses = np.asarray(found.losses)[np.isfinite(found.losses)]
        if len(losses):  # what diverged would hide the rest
            low, high = losses.min(), max(losses[0], np.median(losses))
            axes.set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low))
        axes.legend()
    return figure
