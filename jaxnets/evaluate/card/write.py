"""The card as a file: one that somebody has written in is left alone."""

import hashlib
import re
from typing import NamedTuple

from jaxnets.errors import UserError
from jaxnets.evaluate.card.facts import REPOSITORY, Facts, gather, is_of_the_model, metrics_of
from jaxnets.evaluate.card.metadata import metadata
from jaxnets.evaluate.card.text import body
from jaxnets.run.directory import ModelCard, RunDirectory, read_json
from jaxnets.run.storage import Place, bucket_errors, kind_of, write_whole

NAME, BESIDE = "README.md", "README.new.md"
_MARK = re.compile(r"\n<!-- written by jaxnets \(sha256 ([0-9a-f]{64})\) -->\n$")


class Written(NamedTuple):
    path: Place
    beside: bool  # somebody has written in the card that was there, and the new one lies beside it


def card(facts: Facts) -> str:
    """Returns a model card: metadata in YAML, then Markdown, then a mark by which `is_untouched` knows it again."""
    return _marked(f"---\n{metadata(facts)}\n---\n\n{body(facts)}")


def write_card(folder: Place, facts: Facts) -> Written:
    """Writes README.md into a folder, or README.new.md where the one that is there was changed by hand.

    Raises:
        UserError: if it cannot be written.
    """
    there = _read(folder / NAME)
    beside = there is not None and not is_untouched(there)
    path = folder / (BESIDE if beside else NAME)
    try:
        write_whole(path, card(facts))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): make room or permission for it") from error
    return Written(path, beside)


def card_to_publish(run: RunDirectory, model: ModelCard, step: int, repository: str, weights: str = "ema") -> str:
    """Returns the card of a run's checkpoint under a name on the Hub: that of its report where it was changed by hand.

    `model` is what is published of model.json; `weights` are "ema" or "raw".

    Raises:
        UserError: if the run cannot be read.
    """
    there = _read(run.report / NAME)
    if there is not None and not is_untouched(there):
        return there.replace(REPOSITORY, repository)
    return card(gather(run, step, metrics_of(run, step, weights), repository, model))


def is_untouched(text: str) -> bool:
    """Tells whether a card is as it was written here."""
    match = _MARK.search(text)
    return match is not None and match[1] == _digest(text[: match.start()])


def _marked(text: str) -> str:
    return f"{text}\n<!-- written by jaxnets (sha256 {_digest(text)}) -->\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Place) -> str | None:
    try:
        if kind_of(path) != "file":
            return None
        with bucket_errors(path):
            return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): move it away") from error


def card_of(run: RunDirectory, folder: Place) -> Written | None:
    """Writes the card beside the metrics.json of an evaluation; None where that is not of the model as it is used.

    Raises:
        UserError: if it cannot be written.
    """
    metrics = read_json(folder / "metrics.json")
    if metrics.get("step") is None or not is_of_the_model(metrics):
        return None
    return write_card(folder, gather(run, int(metrics["step"]), metrics))
