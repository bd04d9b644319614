"""Fits what makes a run's answers trustworthy: its temperature, and the bounds beyond which it does not answer.

All of it is chosen on held-out images that are not those of the test split, and kept in the run's model.json.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32

from jaxnets.classifier import Classifier
from jaxnets.data.dataset import Labelled
from jaxnets.data.examples import Examples
from jaxnets.errors import UserError
from jaxnets.evaluate.predictions import Predictions
from jaxnets.loading import Weights
from jaxnets.run.directory import FittedOn, ModelCard, RunDirectory
from jaxnets.trust import bounds
from jaxnets.trust.conformal import fit_quantile
from jaxnets.trust.outliers import MOST_SEEN, Spread, energy
from jaxnets.trust.refusal import Conformal, Refusal
from jaxnets.trust.temperature import at_temperature, fit_temperature

_BATCH = 64
_SEED = 0  # of which training images are looked at


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be fitted, and on which split; a share that is None is not.

    Raises:
        UserError: if a share is not between 0 and 1, or two contradict each other.
    """

    temperature: bool = False
    precision: float | None = None  # share of the answers that are right, promised with 95 % confidence
    coverage: float | None = None  # share of the images that are answered
    conformal: float | None = None  # share of the images whose set of classes holds the right one
    familiar: float | None = None  # share of images like the training images that are not taken for unlike
    split: str = "validation"

    def __post_init__(self) -> None:
        for name in ("precision", "coverage", "conformal", "familiar"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                raise UserError(
                    f"--{name} must be a share between 0 and 1, found {share:g}: 0.95 is 95 %, and no bound has all"
                )
        if self.precision is not None and self.coverage is not None:
            raise UserError("--precision and --coverage choose the same bound: give one of them")
        if self.split in ("test", "train"):
            raise UserError(
                f"a temperature and bounds that were fitted on the {self.split} split would look better than they are: "
                "fit them on held-out images (validation), or on other data with --source"
            )

    @property
    def anything(self) -> bool:
        return self.temperature or any(
            share is not None for share in (self.precision, self.coverage, self.conformal, self.familiar)
        )


class Fitted(NamedTuple):
    """A run with what was fitted to it."""

    card: ModelCard
    classifier: Classifier
    notes: list[str]  # what was found, a sentence each


def check(run: RunDirectory, card: ModelCard, data: Labelled, wanted: Wanted, changed: str | None) -> None:
    """Refuses to fit where that means nothing, or where the result cannot be kept.

    Args:
        changed: the option that makes others answer than the run's own model, if there is one.

    Raises:
        UserError: that says why.
    """
    if changed is not None:
        raise UserError(
            f"what is fitted counts for the run's own answers, and {changed} asks for others: leave it out, and export "
            "the run again afterwards"
        )
    if wanted.split not in data.splits:
        raise UserError(
            f"a temperature and bounds are fitted on held-out images, and there is no split {wanted.split!r} here "
            f"({', '.join(data.splits)}): train with --config.data.validation=0.2, or give other labelled images with "
            "--source, and their split with --fit-on"
        )
    if len(card.class_names) < 2:
        raise UserError(
            f"the run knows one class only ({card.class_names[0]}), and says it with certainty: nothing can be fitted"
        )
    if card.several_labels:
        given = [f"--{name}" for name in ("precision", "coverage", "conformal") if getattr(wanted, name) is not None]
        if given:
            raise UserError(
                f"{given[0]} is for images of one label, and this run's may have several, each with a threshold of its "
                "own: choose those with --thresholds, and leave it out"
            )
    labels = data.split(wanted.split).labels
    if labels.ndim == 1 and len(np.unique(labels)) == 1:
        name = card.class_names[int(labels[0])]
        raise UserError(
            f"the {len(labels)} images of {wanted.split} are all of one class ({name}): what is fitted on them says "
            "nothing of the others. Hold images of each class out"
        )
    run.check_writable()


def fit(
    run: RunDirectory,
    card: ModelCard,
    classifier: Classifier,
    data: Labelled,
    wanted: Wanted,
    predictions: Predictions,
    weights: Weights,
) -> Fitted:
    """Fits what is wanted on held-out predictions, and keeps it in the run.

    What was fitted before to the same checkpoint stays, but for what a new temperature makes void.

    Raises:
        UserError: if it cannot be fitted, or kept; the run is then as it was.
    """
    assert classifier.step is not None  # a run's
    before = card.as_answered(classifier.step, weights)
    asked, notes = _with_earlier(wanted, card, stale=card.is_fitted and not before.is_fitted)
    wanted, temperature, refusal = asked, before.temperature, before.refusal or Refusal()
    if wanted.temperature:
        temperature = fit_temperature(predictions.logits, predictions.labels, predictions.activation)
        notes.append(f"temperature {temperature:.4g}, fitted on {len(predictions)} images of {predictions.split}")
        refusal = Refusal()  # all bounds are of another temperature
    spread = classifier.spread
    if wanted.familiar is not None:
        refusal, spread, said = _familiar(refusal, classifier, data, wanted.familiar, predictions, temperature)
        notes += said
    if wanted.precision is not None or wanted.coverage is not None:
        refusal, said = _sure(refusal, classifier, data, wanted, predictions, temperature, spread)
        notes += said
    if wanted.conformal is not None:
        found = predictions.probabilities(temperature or 1.0)
        quantile = fit_quantile(found, predictions.labels, wanted.conformal)
        refusal = replace(
            refusal,
            conformal=Conformal(quantile=quantile, coverage=wanted.conformal, images=len(predictions)),
        )
        notes.append(f"sets of coverage {wanted.conformal:g}: the classes of probability {1 - quantile:.4g} and more")
    on = FittedOn(step=classifier.step, weights=weights, split=predictions.split, images=len(predictions))
    nothing = refusal == Refusal()
    card = replace(card, temperature=temperature, refusal=None if nothing else refusal, fitted_on=on)
    if jax.process_index() == 0:
        if refusal.distance is not None and spread is not None and wanted.familiar is not None:
            run.write_spread(spread, refusal.distance)
        run.write_model(card)
    fitted = replace(
        classifier,
        temperature=temperature,
        refusal=card.refusal,
        spread=spread if refusal.distance is not None else None,
        thresholds=at_temperature(card.thresholds, temperature),
    )
    return Fitted(card, fitted, notes)


def profiles(
    classifier: Classifier, examples: Examples, chosen: np.ndarray, threads: int
) -> Float32[np.ndarray, "n f"]:
    """Returns the profiles (`models.forward.profile`) of those of some examples that can be read."""
    found = []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for start in range(0, len(chosen), _BATCH):
            read = list(pool.map(examples.read, chosen[start : start + _BATCH].tolist()))
            if images := [each.image for each in read if each.readable]:
                found.append(classifier.profile_fitted(np.stack(images)))
    return np.concatenate(found)


def scores_of(
    classifier: Classifier, predictions: Predictions, examples: Examples, threads: int
) -> dict[str, np.ndarray]:
    """Returns the scores that a classifier has bounds for, of each image of some predictions, by name."""
    wanted = classifier.refusal.scores if classifier.refusal else ()
    found = {}
    if "energy" in wanted:
        found["energy"] = energy(predictions.logits, predictions.activation, classifier.temperature)
    if "distance" in wanted:
        assert classifier.spread is not None
        vectors = profiles(classifier, examples, _numbers(predictions), threads)
        found["distance"] = classifier.spread.distances(vectors)
    return found


def unlike(refusal: Refusal, scores: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Returns of each image whether a score is above its bound."""
    beyond = np.zeros(count, bool)
    for name, values in scores.items():
        beyond |= ~(values <= getattr(refusal, name))
    return beyond


def _familiar(
    refusal: Refusal,
    classifier: Classifier,
    data: Labelled,
    share: float,
    predictions: Predictions,
    temperature: float | None,
) -> tuple[Refusal, Spread | None, list[str]]:
    """Chooses the bounds of energy and distance: each refuses half of the images like these that may be refused."""
    train = data.splits.get("train")
    each = 1 - (1 - share) / 2 if train is not None else share
    energies = energy(predictions.logits, predictions.activation, temperature)
    most = bounds.upper(energies, each)
    spread, distance, notes = None, None, []
    if train is None:
        notes.append("no training images are here to compare with: an image is unlike them by its energy alone")
    else:
        chosen = np.sort(np.random.default_rng(_SEED).permutation(len(train))[:MOST_SEEN])
        spread = Spread.of(profiles(classifier, train, chosen, data.threads))
        vectors = profiles(classifier, data.split(predictions.split), _numbers(predictions), data.threads)
        distances = spread.distances(vectors)
        distance = bounds.upper(distances, each)
    refusal = replace(refusal, energy=most, distance=distance, familiar=share)
    said = f"energy {most:.4g}" + ("" if distance is None else f" and distance {distance:.4g}")
    notes.append(f"unlike the training images: above {said}, which {share:.4g} of images like these are not")
    return refusal, spread, notes


def _sure(
    refusal: Refusal,
    classifier: Classifier,
    data: Labelled,
    wanted: Wanted,
    predictions: Predictions,
    temperature: float | None,
    spread: Spread | None,
) -> tuple[Refusal, list[str]]:
    """Chooses the bound of the probability, among the images that are not refused as unlike the training images."""
    asked = replace(classifier, temperature=temperature, refusal=refusal, spread=spread)
    scores = scores_of(asked, predictions, data.split(predictions.split), data.threads)
    answered = ~unlike(refusal, scores, len(predictions))
    confidences = predictions.probabilities(temperature or 1.0).max(1)[answered]
    right = (predictions.said == predictions.labels)[answered]
    if not len(right):
        raise UserError("the bounds of energy and distance refuse all held-out images: choose them anew (--familiar)")
    if wanted.precision is not None:
        found = bounds.for_precision(confidences, right, wanted.precision)
        aim = f"precision {wanted.precision:g}"
    else:
        assert wanted.coverage is not None
        found = bounds.for_coverage(confidences, right, wanted.coverage, len(predictions))
        aim = f"coverage {wanted.coverage:g}"
    low, high = bounds.interval(found.right, found.answered)
    note = (
        f"{aim}: answered from probability {found.bound:.4g} on, which on {predictions.split} are {found.answered} of "
        f"{len(predictions)} images, {found.right} rightly ({low:.2%} to {high:.2%})"
    )
    if temperature is None:
        note += "; the probabilities are not calibrated (--calibrate)"
    chosen = replace(refusal, probability=found.bound, precision=wanted.precision, coverage=wanted.coverage)
    return chosen, [note]


def _with_earlier(wanted: Wanted, card: ModelCard, *, stale: bool) -> tuple[Wanted, list[str]]:
    """Returns what is wanted, with what was wanted before and has to be chosen anew with it, and a note of that.

    A bound of the probability holds at one temperature, for the images that the others leave; all for one checkpoint.
    """
    earlier = _aims(card.refusal)
    if stale and card.temperature is not None:
        earlier["temperature"] = True
    if not (stale or wanted.temperature):
        void = {"precision", "coverage"} if wanted.familiar is not None else set()
        earlier = {name: share for name, share in earlier.items() if name in void}
    if wanted.precision is not None or wanted.coverage is not None:
        earlier = {name: share for name, share in earlier.items() if name not in ("precision", "coverage")}
    anew = {name: share for name, share in earlier.items() if getattr(wanted, name) in (None, False)}
    if not anew:
        return wanted, []
    named = ", ".join(name if share is True else f"{name} {share:g}" for name, share in anew.items())
    return replace(wanted, **anew), [f"fitted anew as it was wanted before: {named}"]


def _aims(refusal: Refusal | None) -> dict[str, Any]:
    """Returns the shares that bounds and sets were chosen for, by their names in `Wanted`."""
    if refusal is None:
        return {}
    shares = {name: getattr(refusal, name) for name in ("familiar", "precision", "coverage")}
    shares["conformal"] = refusal.conformal.coverage if refusal.conformal else None
    return {name: share for name, share in shares.items() if share is not None}


def _numbers(predictions: Predictions) -> np.ndarray:
    return np.arange(len(predictions)) if predictions.index is None else predictions.index
