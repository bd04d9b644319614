"""What a model with a temperature, bounds and costs decides on a split, and what that comes to."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnets.answer import decide
from jaxnets.classifier import Classifier
from jaxnets.data.examples import Examples
from jaxnets.evaluate.calibrate import scores_of, unlike
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.reliability import reliability
from jaxnets.trust.bounds import interval
from jaxnets.trust.conformal import expected, sizes_and_hits
from jaxnets.trust.costs import Costs
from jaxnets.trust.temperature import at_temperature, log_loss


def decided(
    classifier: Classifier, predictions: Predictions, examples: Examples, threads: int, costs: Costs | None = None
) -> dict[str, Any]:
    """Returns the figures of what a classifier does beyond naming the most probable class, for metrics.json.

    `temperature` and what the probabilities were without it (`uncalibrated`: `ece`, `log_loss`); `refused`: how many
    images get no label and why, and of the answered ones how many are right, with the interval of their precision;
    `sets`: how often conformal sets hold the right class, with its interval, how large they are, and between what
    coverages chance alone puts images like the held-out ones (`expected_low`, `expected_high`); `costs`: what the
    decisions of least expected cost come to for each image, beside those of the most probable class and the best
    decision that is the same for all. A key is there where the classifier has the like.
    """
    found: dict[str, Any] = {}
    probabilities = predictions.probabilities(classifier.temperature or 1.0)
    if classifier.temperature is not None:
        found["temperature"] = classifier.temperature
        found["uncalibrated"] = _uncalibrated(classifier, predictions)
    refusal = classifier.refusal
    if refusal is not None and refusal.refuses:
        scores = scores_of(classifier, predictions, examples, threads)
        strange = unlike(refusal, scores, len(predictions))
        found["refused"] = _refused(classifier, predictions, probabilities, strange)
    if refusal is not None and refusal.conformal is not None and not predictions.several_labels:
        sizes, hits = sizes_and_hits(probabilities, predictions.labels, refusal.conformal.quantile)
        low, high = interval(int(hits.sum()), len(hits))
        held_out = refusal.conformal.images
        usual = None if held_out is None else expected(held_out, refusal.conformal.coverage, len(hits))
        found["sets"] = {
            "wanted": refusal.conformal.coverage,
            **({} if usual is None else {"held_out": held_out, "expected_low": usual[0], "expected_high": usual[1]}),
            "coverage": float(hits.mean()),
            "low": low,
            "high": high,
            "mean_size": float(sizes.mean()),
            "sizes": {str(size): int(count) for size, count in enumerate(np.bincount(sizes)) if count},
        }
    if costs is not None:
        found["costs"] = _costs(costs, predictions, probabilities)
    return found


def in_words(figures: Mapping[str, Any]) -> list[str]:
    """Returns what `decided` found, a sentence each."""
    said = []
    if before := figures.get("uncalibrated"):
        said.append(
            f"at temperature {figures['temperature']:.4g} the calibration error is {figures['ece']:.2%} (without it "
            f"{before['ece']:.2%}), the log-loss {figures['log_loss']:.4f} ({before['log_loss']:.4f})"
        )
    if refused := figures.get("refused"):
        share = refused["answered"] / refused["count"]
        right = ""
        if refused.get("precision") is not None:
            right = f", {refused['precision']:.2%} of them rightly ({refused['low']:.2%} to {refused['high']:.2%})"
        said.append(
            f"{refused['answered']} of {refused['count']} images are answered ({share:.2%}){right}; 'none of these': "
            f"{refused['unlike']} as unlike the training images, {refused['unsure']} as unsure"
        )
    if sets := figures.get("sets"):
        said.append(
            f"sets hold the right class of {sets['coverage']:.2%} ({sets['low']:.2%} to {sets['high']:.2%}; wanted "
            f"{sets['wanted']:.2%}), with {sets['mean_size']:.2f} classes on the average{_usual(sets)}"
        )
    if costs := figures.get("costs"):
        said.append(
            f"the decisions of least expected cost come to {costs['mean']:.4g} for each image, where the most probable "
            f"class costs {costs['most_probable']:.4g} and always {costs['best_constant']!r} {costs['constant']:.4g}"
        )
    return said


def _usual(sets: Mapping[str, Any]) -> str:
    """Returns what coverage chance alone makes of the one that was wanted, and whether this one is beyond it."""
    if "held_out" not in sets:
        return ""
    low, high = sets["expected_low"], sets["expected_high"]
    if sets["coverage"] < low:
        judged = "; here it is less, so that these images are harder than the held-out ones"
    elif sets["coverage"] > high:
        judged = "; here it is more, so that these images are easier, or the most probable class alone covers more"
    else:
        judged = ", as it is here"
    return (
        f"; chosen on {sets['held_out']:,} held-out images, that is {low:.2%} to {high:.2%} of images like them in 95 "
        f"of 100 cases{judged}"
    )


def _uncalibrated(classifier: Classifier, predictions: Predictions) -> dict[str, float]:
    """Returns what the probabilities would be worth without the temperature, for the same answers."""
    plain, labels = predictions.probabilities(), 1
    if predictions.several_labels:
        assert classifier.temperature is not None
        said = decide(plain, at_temperature(classifier.thresholds, 1 / classifier.temperature))
        confidence, right = np.where(said, plain, 1 - plain).ravel(), (said == predictions.labels).ravel()
        labels = plain.shape[1]
    else:
        confidence, right = plain.max(1), predictions.said == predictions.labels
    loss = log_loss(predictions.logits, predictions.labels, predictions.activation) / labels
    return {"ece": reliability(confidence, right).expected_error, "log_loss": loss}


def _refused(
    classifier: Classifier, predictions: Predictions, probabilities: np.ndarray, strange: np.ndarray
) -> dict[str, Any]:
    assert classifier.refusal is not None
    bound = classifier.refusal.probability
    one = not predictions.several_labels
    unsure = ~strange & (probabilities.max(1) < (bound if bound is not None and one else -1))
    answered = ~strange & ~unsure
    found: dict[str, Any] = {
        "wanted": classifier.refusal.wanted,
        "count": len(predictions),
        "answered": int(answered.sum()),
        "unlike": int(strange.sum()),
        "unsure": int(unsure.sum()),
    }
    if one:
        right = int((predictions.said == predictions.labels)[answered].sum())
        low, high = interval(right, found["answered"])
        found |= {"right": right, "precision": right / found["answered"] if found["answered"] else None}
        found |= {"low": low, "high": high}
    return found


def _costs(costs: Costs, predictions: Predictions, probabilities: np.ndarray) -> dict[str, Any]:
    labels, decisions = predictions.labels, costs.decide(probabilities)
    said = predictions.said
    of_each = costs.matrix[labels].mean(0)  # decision, over all images
    best = int(of_each.argmin())
    return {
        "mean": float(costs.paid(labels, decisions).mean()),
        "expected": float(costs.expected(probabilities).min(1).mean()),
        "most_probable": float(costs.paid(labels, said).mean()),
        "constant": float(of_each[best]),
        "best_constant": costs.decisions[best],
        "changed": int((decisions != said).sum()),
        "decisions": {name: int((decisions == number).sum()) for number, name in enumerate(costs.decisions)},
    }
