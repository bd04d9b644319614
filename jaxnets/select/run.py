"""Selection from start to end: the images, what the model sees in them, which are chosen, and the table of these."""

import logging
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from jaxnets.answer import activated, said, thresholds_of
from jaxnets.cache import use_compilation_cache
from jaxnets.classifier import Classifier
from jaxnets.data.sources.folder import image_files
from jaxnets.errors import UserError, nearest
from jaxnets.loading import Weights, load
from jaxnets.select.methods import METHODS, Pool
from jaxnets.select.table import SEPARATOR, Row, check_target, read_labelled, root_for, write_table
from jaxnets.vectors import backbone_of, logits_of, vectors_of

_log = logging.getLogger(__name__)

DEFAULT = "mix"


@dataclass(frozen=True)
class Chosen:
    """An image to label next."""

    file: str
    guess: tuple[str, ...]  # the labels that the model says it has
    probability: float  # of the most probable class
    score: float | None  # more for those to be labelled first; None where a method has no such thing


@dataclass(frozen=True)
class Selection:
    """What `jaxnets.select` found."""

    method: str
    chosen: tuple[Chosen, ...]  # in the order in which they were chosen
    unlabelled: int  # images to choose from
    labelled: int  # images that have a label
    unreadable: tuple[str, ...]  # what was said of images that cannot be read
    out: Path | None  # the table
    main: str | None  # the command that trains on it


def select(
    model: str | os.PathLike[str] | Classifier,
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    count: int,
    *,
    method: str = DEFAULT,
    labelled: str | None = None,
    root: str | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    checkpoint: str | int = "best",
    weights: Weights = "ema",
    say: Callable[[str], None] = lambda text: None,
) -> Selection:
    """Chooses the images that are worth labelling next, as `python -m jaxnets.select`.

        jaxnets.select("runs/a", "photos/", 100, labelled="labels.csv", out="next.csv")

    Args:
        model: what `jaxnets.load` takes, or a classifier.
        images: a folder, an image, or several of these.
        count: how many to choose; all where there are fewer.
        method: "margin", "entropy", "badge", "kcentre", "mix" or "random" (`jaxnets.select.methods`).
        labelled: the images that have a label, which are not chosen: a CSV file or another source of files
            ("folder:DIR"). The table that is written holds them too.
        root: the folder that paths in such a file are relative to; None: its own.
        out: the table to write; there must be none. None: none is written.
        seed: of what is drawn.
        checkpoint: as for `jaxnets.load`, and `weights` too.
        say: is told what is being done.

    Raises:
        UserError: for a wrong method or count, images or labels that are not there, or a table that is there already.
    """
    if method not in METHODS:
        raise UserError(f"the method must be one of {', '.join(METHODS)}, found {method!r}{nearest(method, METHODS)}")
    if count < 1:
        raise UserError(f"the count must be 1 or more, found {count}")
    target = None if out is None else Path(out).expanduser()
    if target is not None:
        check_target(target, labelled)
    known = [] if labelled is None else read_labelled(labelled, root)
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    files = _without(image_files(Path(one).expanduser() for one in given), known)
    use_compilation_cache()
    classifier = model if isinstance(model, Classifier) else load(os.fspath(model), checkpoint, weights, "jax")
    if guesses := sum(row.guess is not None for row in known):
        say(f"{guesses:,} of the labels in {labelled} are unchecked guesses (checked: no), and count as labels")
    say(f"{len(files):,} images without a label, {len(known):,} with one; {classifier!r}")
    pool, readable, unreadable = _look(classifier, files, known, seed, needs_labelled=method == "kcentre", say=say)
    chosen = METHODS[method](pool, min(count, len(pool)))
    if count > len(pool):
        say(f"there are but {len(pool):,} images to choose from: all of them are chosen")
    found = []
    for i in chosen.images.tolist():
        row = pool.probabilities[i]
        guess = said(classifier, row) if classifier.several_labels else [int(row.argmax())]
        found.append(
            Chosen(
                file=readable[i],
                guess=tuple(classifier.labels[k] for k in guess),
                probability=float(row.max()),
                score=None if chosen.scores is None else float(chosen.scores[i]),
            )
        )
    command = None
    if target is not None:
        command = _write(target, known, found, model, classifier)
    return Selection(method, tuple(found), len(pool), len(known), tuple(unreadable), target, command)


def _without(files: Sequence[Path], known: Sequence[Row]) -> list[str]:
    """Returns each file once, but for those that have a label."""
    have = {os.path.realpath(row.file) for row in known}
    left: dict[str, str] = {}
    for file in files:
        real = os.path.realpath(file)
        if real not in have:
            left.setdefault(real, os.path.abspath(file))
    if not left:
        raise UserError(f"all of the {len(files):,} images have a label: expected some without, give another --images")
    return list(left.values())


def _look(
    classifier: Classifier,
    files: Sequence[str],
    known: Sequence[Row],
    seed: int,
    *,
    needs_labelled: bool,
    say: Callable[[str], None],
) -> tuple[Pool, list[str], list[str]]:
    """Returns what the model sees, the files that can be read, and what was said of the others."""
    vectors, errors = _vectors(classifier, files, "images", say)
    if not len(vectors):
        raise UserError(f"none of the {len(files):,} images can be read: {errors[0]}")
    labelled = np.zeros((0, vectors.shape[1]), np.float32)
    if needs_labelled and known:
        labelled, unread = _vectors(classifier, [row.file for row in known], "images that have a label", say)
        for error in unread.values():
            _log.warning("%s: it is left out", error)
    logits = logits_of(classifier, vectors)
    pool = Pool(
        vectors=vectors,
        probabilities=activated(logits, classifier.activation, classifier.temperature),
        labelled=labelled,
        several_labels=classifier.several_labels,
        thresholds=thresholds_of(classifier),
        seed=seed,
    )
    readable = [file for i, file in enumerate(files) if i not in errors]
    return pool, readable, list(errors.values())


def _vectors(
    classifier: Classifier, files: Sequence[str], what: str, say: Callable[[str], None]
) -> tuple[Float32[np.ndarray, "n f"], dict[int, str]]:
    """Returns the vectors of those that can be read, and by their number what was said of the others."""
    parts: list[np.ndarray] = []
    errors: dict[int, str] = {}
    next_word = 0.0
    for block in vectors_of(backbone_of(classifier), files):
        parts.append(block.vectors)
        errors |= {block.start + i: error for i, error in enumerate(block.errors) if error is not None}
        done = block.start + len(block.errors)
        if done / len(files) >= next_word + 0.1:
            next_word = done / len(files)
            say(f"{done:,} of {len(files):,} {what} seen")
    return np.concatenate(parts), errors


def _write(
    out: Path,
    known: Sequence[Row],
    chosen: Sequence[Chosen],
    model: str | os.PathLike[str] | Classifier,
    classifier: Classifier,
) -> str:
    """Writes the table; returns the command that trains on it."""
    rows = [
        *known,
        *(Row(one.file, one.guess, guess=one.guess, probability=one.probability) for one in chosen),
    ]
    root = root_for(out, (row.file for row in rows))
    check_target(out, None)  # nobody has written one meanwhile
    write_table(out, root, rows)
    keys = {"data.source": f"csv:{out}"}
    if root != out.absolute().parent:
        keys["data.root"] = str(root)
    if classifier.several_labels:
        keys["data.table.separator"] = SEPARATOR
    keys["model.name"] = classifier.name
    if not isinstance(model, Classifier):
        keys["model.pretrained"] = os.fspath(model)
    given = " ".join(shlex.quote(f"--config.{key}={value}") for key, value in keys.items())
    return f"python -m jaxnets.main --config finetune {given} --workdir RUN"
