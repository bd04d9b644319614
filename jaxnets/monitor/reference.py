"""What a window is compared with: records of a run's held-out images, made once, or those of a log."""

import logging
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxnets.cache import cache_directory
from jaxnets.classifier import Classifier
from jaxnets.data.examples import Examples
from jaxnets.data.sources import CorruptImage
from jaxnets.data.sources.base import read_reduced
from jaxnets.engine.runtime import EngineName
from jaxnets.errors import UserError
from jaxnets.evaluate.files import write_file
from jaxnets.evaluate.opened import OpenedModel
from jaxnets.evaluate.run import open_data
from jaxnets.loading import Weights, load
from jaxnets.monitor.log import find_log, holds_records, read_log
from jaxnets.monitor.observe import Observer
from jaxnets.monitor.records import RECORD, UNKNOWN, Records, joined, read_file
from jaxnets.run.directory import RunDirectory, open_run
from jaxnets.run.resolve import resolve

_log = logging.getLogger(__name__)

MOST = 20_000  # images that a reference is made of; more of them tell hardly more
_BATCH = 64
_SEED = 0  # of which images they are


class Asked(NamedTuple):
    """Which reference is meant, as the command line says it."""

    reference: str  # a run, another model, or a log
    split: str | None = None  # None: validation where there is one, else test
    source: str | None = None  # of the data, as for evaluate
    checkpoint: str | int = "best"
    weights: Weights = "ema"
    engine: EngineName = "auto"
    name: str | None = None  # of the model in a log


def open_reference(asked: Asked) -> Records:
    """Returns the reference; of a run it is kept beside the run and made only once.

    Raises:
        UserError: if there is none, or it cannot be made.
    """
    folder = Path(asked.reference).expanduser()
    if folder.is_dir() and not RunDirectory(folder).is_run() and holds_records(folder):
        return read_log(find_log(folder, asked.name, "--reference"))
    found = resolve(asked.reference)
    if not found.is_run and asked.source is None:
        raise UserError(
            f"--reference {asked.reference} is no run, which would say what images it knows, and no log of records: "
            "say with --source what images are usual, or give a log of a time when all was well"
        )
    classifier = load(asked.reference, asked.checkpoint, asked.weights, asked.engine)
    run: RunDirectory
    if found.is_run:
        run = open_run(found.location)
    else:
        assert asked.source is not None
        run = OpenedModel(Path(found.name), classifier, asked.source)
    kept = _kept(run, classifier, asked)
    for file in kept:
        if file.is_file():
            try:
                return read_file(file)
            except UserError as error:
                _log.info("%s; the reference is made anew", error)
    records = _make(run, classifier, asked)
    _keep(records, kept)
    return records


def _kept(run: RunDirectory, classifier: Classifier, asked: Asked) -> list[Path]:
    """Returns where a reference may lie: beside the run, or in the user's cache."""
    source = "" if asked.source is None else f"-{zlib.crc32(asked.source.encode()):08x}"
    # Not called as a log's files are: a run that lost its model.json is no log.
    name = f"{asked.split or 'held-out'}{source}-{classifier.fingerprint}.reference"
    folders = [cache_directory() / "monitor"]
    if isinstance(run.path, Path) and not isinstance(run, OpenedModel):
        folders.insert(0, run.path / "monitor")
    return [folder / name for folder in folders]


def _keep(records: Records, files: list[Path]) -> None:
    content = records.about.to_line() + records.rows.tobytes()
    for file in files:
        try:
            write_file(file, content)
        except UserError as error:
            _log.info("%s", error)
        else:
            return


def _make(run: RunDirectory, classifier: Classifier, asked: Asked) -> Records:
    data = open_data(run.read_config(), run.read_model(), asked.split or "test", asked.source)
    names = list(data.splits)
    split = asked.split or next((name for name in ("validation", "test") if name in names), names[0])
    if split == "train" and asked.split is None and asked.source is None:
        raise UserError(
            f"the data of {asked.reference} has no images that were held out: of those that it was trained on a model "
            "is surer than of any others. Say with --source what images are usual, or give a log of records"
        )
    examples = data.split(split)
    observer = Observer(classifier.observing(), run.path.name)
    chosen = np.sort(np.random.default_rng(_SEED).permutation(len(examples))[:MOST])
    _log.info("the reference is made of %d images of %s", len(chosen), split)
    made = observe_examples(observer, examples, chosen, data.threads)
    if not len(made):
        raise UserError(f"none of the images of {split} can be read: give others with --split or --source")
    return made


def observe_examples(observer: Observer, examples: Examples, chosen: np.ndarray, threads: int) -> Records:
    """Returns records of those of some examples that can be read, by the way that the service's images go."""
    stored, numbers = examples.stored
    fit = observer.predictor.preprocess.fit

    def read(index: int) -> tuple[UInt8[np.ndarray, "h w c"], tuple[int, int]] | None:
        try:
            found = read_reduced(stored, int(numbers[index]), None)
        except CorruptImage as error:
            _log.warning("skipped: %s", error)
            return None
        return fit(found.image, found.original), found.original

    each = [np.zeros(0, RECORD)]
    labels = examples.labels if examples.labels.ndim == 1 else np.full(len(examples), UNKNOWN)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for start in range(0, len(chosen), _BATCH):
            batch = chosen[start : start + _BATCH]
            found = list(pool.map(read, batch.tolist()))
            there = [(pair, label) for pair, label in zip(found, labels[batch], strict=True) if pair is not None]
            if there:
                rows = observer.rows(np.stack([pair[0] for pair, _ in there]))
                truths = np.array([label for _, label in there])
                each.append(observer.records(rows, [pair[1] for pair, _ in there], truths=truths))
    return joined([Records(about=observer.about, rows=rows) for rows in each])
