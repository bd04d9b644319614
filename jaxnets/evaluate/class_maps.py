"""The test sets that were made for ImageNet's classes, in the folders in which they are published.

imagenet: the validation images in a folder for each WordNet synset (n01440764). imagenet-v2: new images in folders that
are called by the number of the class, 0 to 999 (Recht et al. 2019). imagenet-a and imagenet-r: hard images, and
drawings, of 200 of the classes each, in folders of synsets (Hendrycks et al. 2021a, 2021b); a model answers among these
200. imagenet-sketch: drawings of all, in folders of synsets (Wang et al. 2019). real:FILE: the validation images with
the labels of Beyer et al. (2020) from their real.json, of which an image may have several, and an answer is right that
is one of them; images without any do not count.

Which class is which synset, and which 200 there are, is read from `imagenet_synsets.txt`: the synset of each class in
its order, and the letters of the sets that have it. They are as in github.com/hendrycks/natural-adv-examples and
github.com/hendrycks/imagenet-r (eval.py), and as in timm's lists.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from jaxnets.config import Config
from jaxnets.cores import cores
from jaxnets.data.dataset import Labelled
from jaxnets.data.examples import Examples
from jaxnets.data.sources import Source, Subset, open_labelled
from jaxnets.errors import UserError, nearest, quoted
from jaxnets.evaluate.predictions import Predictions
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.imagenet import class_names as imagenet_names

NAMES = ("imagenet", "imagenet-v2", "imagenet-a", "imagenet-r", "imagenet-sketch", "real:FILE")
_LETTERS = {"imagenet-a": "a", "imagenet-r": "r"}
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})", re.IGNORECASE)  # of a validation image, from 1


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    name: str
    folders: dict[str, int]  # to the number of the class among ImageNet's
    answers: tuple[int, ...] | None = None  # the classes that a model may answer with; None: all
    real: tuple[frozenset[int], ...] | None = None  # of each validation image, the classes that it has


def find_class_map(name: str) -> ClassMap:
    """Returns the class map that `--class-map` names.

    Raises:
        UserError: if there is none, or the file of labels cannot be read.
    """
    kind, _, file = name.partition(":")
    if kind == "real":
        return ClassMap(name="real", folders=_by_synset(), real=_read_real(file))
    if name == "imagenet-v2":
        return ClassMap(name=name, folders={str(number): number for number in range(len(synsets()))})
    if name in _LETTERS:
        chosen = tuple(i for i, letters in enumerate(_letters()) if _LETTERS[name] in letters)
        return ClassMap(name=name, folders={synsets()[i]: i for i in chosen}, answers=chosen)
    if name in ("imagenet", "imagenet-sketch"):
        return ClassMap(name=name, folders=_by_synset())
    raise UserError(f"--class-map must be one of {', '.join(NAMES)}, found {quoted(name)}{nearest(name, NAMES)}")


def columns_of(class_names: Sequence[str]) -> Int64[np.ndarray, " 1000"]:
    """Returns the column of each of ImageNet's classes among a model's.

    Raises:
        UserError: if the model's classes are not ImageNet's, by their names here, by their synsets or by their numbers.
    """
    for known in (imagenet_names(), synsets(), tuple(map(str, range(len(synsets()))))):
        if set(known) <= set(class_names):
            where = {name: column for column, name in enumerate(class_names)}
            return np.array([where[name] for name in known], np.int64)
    shown = ", ".join(map(quoted, class_names[:3]))
    raise UserError(
        f"--class-map is for models of ImageNet's 1,000 classes, and this one has {len(class_names)} ({shown}, …): "
        "without it, classes are matched by their names"
    )


def open_mapped(
    config: Config, preprocess: Preprocess, class_names: Sequence[str], chosen: ClassMap, source: str | None = None
) -> Labelled:
    """Opens a source, the config's where none is given, its folders read by a class map.

    Labels count the model's classes.

    Raises:
        UserError: if it cannot be read, has a folder that the map does not know, or the model has other classes.
    """
    columns = columns_of(class_names)
    names = tuple(chosen.folders)
    try:
        data = config.data if source is None else replace(config.data, source=source, root=None)
        opened = open_labelled(data, names)
    except UserError as error:
        raise UserError(f"{error}. Its folders are read by --class-map {chosen.name}") from error
    of_folder = columns[[chosen.folders[name] for name in names]].astype(np.int32)
    return Labelled(
        splits={
            name: Examples(
                Subset(split, np.arange(len(split)), of_folder, len(class_names)),
                np.arange(len(split)),
                preprocess,
                skip_corrupt=config.data.skip_corrupt,
            )
            for name, split in opened.splits.items()
        },
        threads=cores() if config.data.threads is None else config.data.threads,
        notes=(f"classes as in {chosen.name}: {len(names):,} folders, {_answers(chosen)}", *_count(opened)),
    )


def restricted(predictions: Predictions, chosen: ClassMap) -> Predictions:
    """Returns predictions of the classes that a map lets a model answer with, by the logits of these alone.

    Raises:
        UserError: if an image has a class that is not among them.
    """
    if chosen.answers is None:
        return predictions
    columns = np.sort(columns_of(predictions.class_names)[list(chosen.answers)])
    place = np.full(len(predictions.class_names), -1, np.int32)
    place[columns] = np.arange(len(columns))
    labels = place[predictions.labels]
    if (labels < 0).any():
        example = int(np.flatnonzero(labels < 0)[0])
        name = predictions.class_names[int(predictions.labels[example])]
        raise UserError(f"{quoted(predictions.paths[example])} is {quoted(name)}, which is none of {chosen.name}'s")
    return replace(
        predictions,
        class_names=tuple(predictions.class_names[i] for i in columns.tolist()),
        labels=labels,
        logits=predictions.logits[:, columns],
    )


def real_figures(predictions: Predictions, chosen: ClassMap) -> dict[str, float | int]:
    """Returns the accuracy by the labels of ReaL, and of how many images; nothing for another map.

    Raises:
        UserError: if images are not called as ImageNet's validation images are.
    """
    if chosen.real is None:
        return {}
    right, counts = real_right(predictions, chosen.real)
    return {
        "real_accuracy": float(right[counts].mean()) if counts.any() else float("nan"),
        "real_count": int(counts.sum()),
    }


def real_right(
    predictions: Predictions, real: Sequence[frozenset[int]]
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Returns whether each answer is one of the image's labels, and whether the image has any."""
    class_of = np.full(len(predictions.class_names), -1, np.int64)  # of each column, the number among ImageNet's
    columns = columns_of(predictions.class_names)
    class_of[columns] = np.arange(len(columns))
    said = class_of[predictions.said].tolist()
    right, counts = np.zeros(len(said), bool), np.zeros(len(said), bool)
    for i, path in enumerate(predictions.paths):
        found = _NUMBER.search(path)
        number = int(found[1]) if found else 0
        if not 1 <= number <= len(real):
            raise UserError(
                f"{quoted(path)} is none of ImageNet's validation images, whose names are ILSVRC2012_val_00000001 to "
                f"{len(real):08d}: --class-map real is for them"
            )
        labels = real[number - 1]
        right[i], counts[i] = said[i] in labels, bool(labels)
    return right, counts


@cache
def synsets() -> tuple[str, ...]:
    """Returns the WordNet synset of each of ImageNet's classes."""
    return tuple(line.split()[0] for line in _lines())


@cache
def _letters() -> tuple[frozenset[str], ...]:
    return tuple(frozenset(line.split()[1:]) for line in _lines())


@cache
def _lines() -> tuple[str, ...]:
    text = resources.files("jaxnets.evaluate").joinpath("imagenet_synsets.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _by_synset() -> dict[str, int]:
    return {synset: number for number, synset in enumerate(synsets())}


def _read_real(file: str) -> tuple[frozenset[int], ...]:
    where = "github.com/google-research/reassessed-imagenet"
    if not file:
        raise UserError(f"--class-map real needs its labels: give real:FILE, the real.json of {where}")
    try:
        found = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): give real:FILE, the real.json of {where}") from error
    valid = isinstance(found, list) and all(
        isinstance(row, list) and all(type(x) is int and 0 <= x < len(synsets()) for x in row) for row in found
    )
    if not valid:
        raise UserError(f"{file} must be a list of lists of classes from 0 to 999, one for each image: see {where}")
    return tuple(map(frozenset, found))


def _answers(chosen: ClassMap) -> str:
    return "all classes are answers" if chosen.answers is None else f"answers among its {len(chosen.answers)} classes"


def _count(source: Source) -> tuple[str, ...]:
    return tuple(note for note in source.notes if not note.startswith(f"{source.description} has no images of"))
