"""What a run shows while it trains: a live bar in a terminal, plain lines elsewhere."""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from jaxnets import terminal
from jaxnets.config import Config
from jaxnets.data.dataset import Dataset
from jaxnets.recipe.losses.imbalance import Rebalance
from jaxnets.schema import flatten, written
from jaxnets.train.bar import Bar, open_bar


class Display:
    """Shows a run's progress on `console`, or with `quiet` nothing; with `parameters` also a table of them."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False, parameters: bool = False) -> None:
        self._console = console or terminal.console(quiet=quiet)
        self._parameters = parameters
        self._bar: Bar | None = None

    def describe(
        self,
        config: Config,
        data: Dataset,
        params: Any,
        mesh: Mesh,
        steps: int,
        frozen: str | None = None,
        rebalance: Rebalance | None = None,
        *,
        quantised: bool = False,
    ) -> None:
        """Shows what is about to be trained: what was changed from the defaults, the model, the data, the devices.

        `frozen` says what trains of the model, where something does not.
        """
        if self._parameters:
            from clu import parameter_overview  # 0.1 s, and only for this table

            self.say(parameter_overview.get_parameter_overview(params, include_stats=False))
        defaults = flatten(Config())
        changed = [f"{key}={written(value)}" for key, value in flatten(config).items() if value != defaults[key]]
        self._item("config", " ".join(changed) or "the defaults")
        count = sum(x.size for x in jax.tree.leaves(params))
        start = f", from {config.model.pretrained}" if config.model.pretrained else ""
        bits = " in 8 bits" if quantised else ""
        self._item("model", f"{config.model.name}{bits}, {count:,} parameters{start}")
        if frozen:
            self._item("trained", frozen)
        sizes = ", ".join(f"{len(examples):,} {name}" for name, examples in data.splits.items())
        p = data.preprocess
        size, t = f"{p.height}×{p.width}×{p.channels}", data.training_preprocess
        if (t.height, t.width) != (p.height, p.width):
            size += f" (trained at {t.height}×{t.width})"
        self._item("data", f"{config.data.source}, {sizes}, {size}; {'; '.join(data.notes)}")
        if rebalance is not None and rebalance.weights is not None:
            ranked = sorted(zip(rebalance.weights, data.class_names, strict=True))
            (low, lightest), (high, heaviest) = ranked[0], ranked[-1]
            self._item("class weights", f"from {low:.3g} ({lightest}) to {high:.3g} ({heaviest})")
        devices = mesh.devices.flatten()
        kind = devices[0].device_kind
        self._item("devices", f"{len(devices)} × {kind}; {steps:,} steps of {config.batch_size:,} examples")

    def _item(self, name: str, text: str) -> None:
        line = f"{name}: {terminal.shown(text)}"
        if self._console.is_terminal:  # a file keeps one line for each
            line = textwrap.fill(
                line, self._console.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
            )
        self.say(line)

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Shows how far something has come that is no step of training; what it yields takes (done, total)."""
        bar = open_bar(self._console, what, transient=True)
        try:
            yield bar.update if bar else lambda done, total: None
        finally:
            if bar:
                bar.close()

    def start(self, step: int, steps: int) -> None:
        self._steps = steps
        self._bar = open_bar(self._console, "training")
        if self._bar:
            self._bar.update(step, steps, "compiling …")

    def update(self, step: int, loss: float, accuracy: float, images_per_second: float | None) -> None:
        if self._bar is not None:
            figures = f"loss {loss:.3f}  accuracy {accuracy:.1%}"
            if images_per_second is not None:
                figures += f"  {images_per_second:,.0f} images/s"
            self._bar.update(step, self._steps, figures)

    def row(self, step: int, steps: int, epoch: float, values: Mapping[str, Any]) -> None:
        """Shows a row of metrics.jsonl; the training rows only where there is no bar."""
        if self._bar is not None and any(key.startswith("train/") for key in values):
            return
        what = values.get("eval/split") or next(iter(values)).partition("/")[0]
        figures = {key.partition("/")[2]: value for key, value in values.items() if not key.endswith("/split")}
        raw = {key.removeprefix("raw_"): value for key, value in figures.items() if key.startswith("raw_")}
        if raw:
            what, figures = f"{what}, averaged weights", {k: v for k, v in figures.items() if not k.startswith("raw_")}
        shown = "  ".join(_figures(figures)) + (f";  raw weights: {'  '.join(_figures(raw))}" if raw else "")
        self.say(f"step {step:>{len(str(steps))}}/{steps}  epoch {epoch:6.2f}  {what}: {shown}")

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _figures(figures: Mapping[str, Any]) -> list[str]:
    return [f"{key} {_figure(key, value)}" for key, value in figures.items() if value is not None]


def _figure(key: str, value: Any) -> str:
    if not isinstance(value, float):
        return f"{value:,}"
    if key == "top5" or key.endswith("accuracy"):
        return f"{value:.2%}"
    if key in ("data_wait", "mfu"):
        return f"{value:.1%}"
    return f"{value:,.0f}" if key == "images_per_second" else f"{value:.4g}"
