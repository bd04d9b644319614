"""Draws docs/run.svg: what a terminal shows while the digits train, once the second evaluation is done.

python -m tools.run_svg
"""

import io
import tempfile
from pathlib import Path

from rich.console import Console

from jaxnets.cache import use_compilation_cache
from jaxnets.flags import load_config
from jaxnets.train.display import Display
from jaxnets.train.loop import train

_TARGET = Path(__file__).parent.parent / "docs" / "run.svg"
_COMMAND = "python -m jaxnets.main --config digits --workdir runs/digits"
_SHARE = 0.64  # of the run that is over
_WIDTH = 118  # characters


class _Drawn(Exception):
    """All was seen."""


class _Drawing(Display):
    """Keeps the lines, and of the bar its last state alone."""

    def __init__(self) -> None:
        # The bar shows in this terminal of no one; the drawing takes what it is made of.
        super().__init__(Console(file=io.StringIO(), force_terminal=True, width=_WIDTH, markup=False, highlight=False))
        self.drawing = Console(
            file=io.StringIO(), record=True, force_terminal=True, width=_WIDTH, markup=False, highlight=False
        )
        self._last = 0

    def say(self, text: str) -> None:
        self.drawing.print(text)

    def start(self, step: int, steps: int) -> None:
        self._last = round(_SHARE * steps)
        super().start(step, steps)

    def update(self, step: int, loss: float, accuracy: float, images_per_second: float | None) -> None:
        super().update(step, loss, accuracy, images_per_second)
        if step >= self._last and self._bar is not None and images_per_second is not None:
            self.drawing.print(self._bar.get_renderable())
            raise _Drawn


def main() -> None:
    use_compilation_cache()
    display = _Drawing()
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(load_config("digits", []), Path(folder) / "digits", display)
        except _Drawn:
            _TARGET.write_text(display.drawing.export_svg(title=_COMMAND), encoding="utf-8")
            print(f"{_TARGET} is written")


if __name__ == "__main__":
    main()
