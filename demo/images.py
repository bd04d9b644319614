"""What the demo asks of a model, without anything of Gradio: classes, maps, and tables of many images."""

import csv
import io
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxnets.answer import listed, probabilities_of, ranked, reason_of, refuses, said, shown_first
from jaxnets.classifier import Classifier
from jaxnets.data.decode import decode
from jaxnets.data.sources import CorruptImage
from jaxnets.explain.methods import METHODS, find_method
from jaxnets.explain.overlay import drawable, overlay
from jaxnets.explain.stage import stages
from jaxnets.loading import load
from jaxnets.preprocess import with_channels
from jaxnets.run.directory import RunDirectory, open_run
from jaxnets.run.resolve import resolve
from jaxnets.trust.refusal import NONE_OF_THESE

MOST_PROBABLE = -1  # instead of a class's number
TOP = 5  # classes that are named
SHOWN_SIDE = 1024  # pixels: a phone's photograph is brought down to this before it travels back
BRIEF = ("file", "answer", "probabilities, or what is wrong")
BETWEEN = "|"  # the labels of one image in a table: as config.data.table.separator reads them again
_BATCH = 16  # images that are held decoded at once


@dataclass(frozen=True)
class Shown:
    """A model on the page."""

    source: str  # as given to --model
    classifier: Classifier
    run: RunDirectory | None  # None: a pretrained model
    # Two requests at once would make the same graph, or compile the same program, twice; and a prediction should not
    # wait for a map's program, which takes seconds.
    _opening: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _explaining: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def title(self) -> str:
        if (meant := resolve(self.source)).given:
            return meant.name
        if self.run is None:
            return self.source
        name = self.run.path.resolve().name
        return self.classifier.name if name == "run" else name  # where deploy_space puts it

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes' names, each with its number where two classes share one."""
        count = Counter(self.classifier.labels)
        return tuple(
            label if count[label] == 1 else f"{label} (class {number})"
            for number, label in enumerate(self.classifier.labels)
        )

    @cached_property
    def stages(self) -> list[str]:
        return list(stages(self.classifier.model))

    @cached_property
    def methods(self) -> list[str]:
        """The methods that can explain this model with what is installed for sure, its default first."""
        default = self.classifier.explainer.choose(None, None)
        able = [m for m in METHODS.values() if m.compiled and self.classifier.explainer.suits(m)]
        return [default.name, *(method.name for method in able if method is not default)]

    def decode(self, file: Path) -> UInt8[np.ndarray, "h w c"]:
        """Returns a file's image, 16 bits brought to 8 as the model's own were.

        Raises:
            CorruptImage: with the file's name, for what is no image that can be read.
        """
        return decode(file, file.name, self.classifier.preprocess.white_level)

    def rows(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns each image's row, as `jaxnets.answer` reads it: its probabilities, then scores that have bounds."""
        self._open()
        return self.classifier.rows(images)

    def explain(
        self, image: np.ndarray, label: int, stage: str, method: str | None = None
    ) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
        """Returns the image under its map, with at most SHOWN_SIDE pixels a side, and a sentence that names it.

        The stage is for the methods that look at one.
        """
        asked = find_method(method or self.methods[0])
        self._open()
        with self._explaining:
            wanted = None if label == MOST_PROBABLE else [label]
            at = stage if asked.by_stage else None
            (found,) = self.classifier.explain_batch([image], wanted, stage=at, method=asked.name)
        small, heat = shrink(with_channels(image, 3)), shrink(found.heat)
        whom = f"as {stage} sees it" if asked.by_stage else f"by {asked.title}"
        caption = f"**{self.names[found.label]}** {found.probability:.1%}{found.remark}, {whom}."
        if asked.signed:
            caption += " Yellow speaks for it, blue against it."
        if not found.heat.any():
            caption += " Nothing in this stage speaks for it: the map is empty."
        return overlay(small, drawable(heat)[0] if found.fine else heat, signed=asked.signed), caption

    def warm(self) -> None:
        """Does once what the first visitor would otherwise wait for."""
        grey = np.full((64, 64, 3), 128, np.uint8)
        self.rows([grey])
        self.explain(grey, MOST_PROBABLE, self.stages[-1])

    def _open(self) -> None:
        with self._opening:
            _ = self.classifier.engine


def open_shown(source: str, checkpoint: str | int = "best", engine: str = "auto") -> Shown:
    """Opens a run directory, or a pretrained model by name.

    Raises:
        UserError: if there is no such model.
    """
    classifier = load(source, checkpoint, engine=engine)  # type: ignore[arg-type]
    return Shown(source, classifier, None if classifier.step is None else open_run(resolve(source).location))


def top(shown: Shown, row: np.ndarray) -> list[tuple[str, float]]:
    """Returns the most probable classes, the first first; of several labels those that are said come before others."""
    numbers = shown_first(shown.classifier, row, TOP)
    return [(shown.names[number], float(row[number])) for number in numbers]


def answer(shown: Shown, row: np.ndarray) -> list[str]:
    """Returns the most probable class, or the labels that the image is said to have: any number, or none.

    Of an image that the model refuses it is none either.
    """
    return [shown.names[number] for number in said(shown.classifier, row)]


def headline(shown: Shown, row: np.ndarray) -> str:
    """Returns the answer in words, or that it is none of these and why."""
    reason = reason_of(shown.classifier, row)
    return listed(answer(shown, row)) if reason is None else f"{NONE_OF_THESE}: {reason.partition(':')[0]}"


def choices(shown: Shown, row: np.ndarray | None) -> list[tuple[str, int]]:
    """Returns what the class to explain can be: the most probable, then all, the probable ones first."""
    if row is None:
        return [("top class", MOST_PROBABLE)]
    probabilities = probabilities_of(shown.classifier, row)
    order = ranked(probabilities)
    named = [(f"{shown.names[number]}, {probabilities[number]:.1%}", number) for number in order[:TOP]]
    return [("top class", MOST_PROBABLE), *named, *((shown.names[number], number) for number in order[TOP:])]


def table(shown: Shown, files: Sequence[Path]) -> Iterator[list[str | float]]:
    """Yields a row of `columns` for each file, in order; one that cannot be read gets its reason in the last column."""
    for start in range(0, len(files), _BATCH):
        chosen = files[start : start + _BATCH]
        decoded: dict[int, np.ndarray] = {}
        reasons: dict[int, str] = {}
        for number, file in enumerate(chosen):
            try:
                decoded[number] = shown.decode(file)
            except CorruptImage as error:
                reasons[number] = str(error)
        found = dict(zip(decoded, shown.rows(list(decoded.values())), strict=True))
        for number, file in enumerate(chosen):
            if number in reasons:
                yield [file.name, *[""] * (len(columns(shown)) - 2), reasons[number]]
            else:
                row = found[number]
                reason = reason_of(shown.classifier, row)
                first = [BETWEEN.join(answer(shown, row)) if reason is None else NONE_OF_THESE] if _says(shown) else []
                named = [cell for name, p in top(shown, row)[: _named(shown)] for cell in (name, round(p, 6))]
                why = [reason or ""] if refuses(shown.classifier) else []
                yield [file.name, *first, *named, *why, ""]


def columns(shown: Shown) -> list[str]:
    """Returns the heads of the table: class and probability of each of the most probable classes, and the error.

    Where an image may have several labels, those that it is said to have come first. Of a model that refuses images its
    answer comes first, and behind the classes the reason of "none of these".
    """
    ranks = range(1, _named(shown) + 1)
    first = [("labels" if shown.classifier.several_labels else "answer")] if _says(shown) else []
    why = ["reason"] if refuses(shown.classifier) else []
    named = (f"{head} {rank}" for rank in ranks for head in ("class", "probability"))
    return ["file", *first, *named, *why, "error"]


def brief(row: Sequence[str | float], *, several_labels: bool = False, refuses: bool = False) -> list[str]:
    """Returns a row of the table in the columns of BRIEF, which fit on a page."""
    file, *cells, error = row
    if error:
        return [str(file), "", str(error)]
    if refuses:
        reason = str(cells.pop())
        if reason:
            named = [f"{name} {p:.1%}" for name, p in zip(cells[1::2], cells[2::2], strict=True)]
            return [str(file), f"{NONE_OF_THESE}: {reason.partition(':')[0]}", ", ".join(named)]
        if not several_labels:
            cells.pop(0)
    labels = str(cells.pop(0)).split(BETWEEN) if several_labels else []
    named = [f"{name} {p:.1%}" for name, p in zip(cells[::2], cells[1::2], strict=True)]
    if several_labels:
        return [str(file), listed([label for label in labels if label]), ", ".join(named)]
    return [str(file), named[0], ", ".join(named[1:])]


def to_csv(heads: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([_no_formula(cell) for cell in row] for row in rows)
    return text.getvalue()


def _says(shown: Shown) -> bool:
    """Whether a table has a column for the answer, which the most probable class is not."""
    return shown.classifier.several_labels or refuses(shown.classifier)


def _named(shown: Shown) -> int:
    return min(TOP, len(shown.names))


def _no_formula(cell: str | float) -> str | float:
    # A spreadsheet runs what begins like this, and files are named by strangers.
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def shrink(array: np.ndarray, side: int = SHOWN_SIDE) -> np.ndarray:
    """Returns uint8 `[h, w, 3]` or float32 `[h, w]` with at most `side` pixels a side."""
    scale = side / max(array.shape[:2])
    if scale >= 1:
        return array
    height, width = (max(round(length * scale), 1) for length in array.shape[:2])
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BOX))
