"""Where it is wrong: the most confident mistakes with what spoke for them, and labels that may be wrong."""

from html import escape

import numpy as np
from PIL import Image

from jaxnets.audit.sheet import data_uri, thumbnail
from jaxnets.evaluate.label_errors import Suspects
from jaxnets.evaluate.page.images import Images
from jaxnets.evaluate.page.section import Section, image, images, paragraph, percent
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.run import Evaluation
from jaxnets.evaluate.several_labels import JudgedSeveral
from jaxnets.explain.overlay import overlay

_SHOWN = 12
_SUSPECTS = 24
_SIDE = 1024  # pixels, above which an image is made smaller before it is explained


def mistakes(evaluation: Evaluation, shown: Images) -> Section:
    """Returns the wrong answers that the model is surest of, each with what spoke for it and for what is true."""
    cases = worst(evaluation)[:_SHOWN]
    if not cases:
        return Section("Most confident mistakes", paragraph("There is none: all are answered rightly."), "mistakes")
    names = evaluation.predictions.class_names
    reasons = _reasons(evaluation, shown, cases)
    html = paragraph(
        "In false colour: what spoke for the wrong answer, and what spoke for the right one (Grad-CAM; yellow is most)."
        if reasons
        else "The model cannot be asked for its reasons here: only the images are shown.",
        "dim",
    )
    if reasons and evaluation.metrics.get("file"):
        html += paragraph("The reasons are those of the run's own weights, in JAX: the file has no gradients.", "dim")
    boxes = []
    for position, (i, wrong, right) in enumerate(cases):
        row = evaluation.judged.probabilities[i]
        cells = [image(shown.uri(i), f"is <b>{escape(_true(evaluation, i))}</b><br>{escape(shown.name(i))}")]
        for label, heat in zip((wrong, right), reasons[position] if reasons else (), strict=False):
            cells.append(image(heat, f"for {escape(names[label])}: <b>{percent(float(row[label]))}</b>"))
        said = f"said {names[wrong]}" if wrong != right else f"{names[wrong]}: {_verdict(evaluation, i, wrong)}"
        boxes.append(f"<div class=case><b>{escape(said)} {percent(float(row[wrong]))}</b>{images(cells)}</div>")
    html += f"<div class=trio>{''.join(boxes)}</div>"
    return Section("Most confident mistakes", html, "mistakes")


def worst(evaluation: Evaluation) -> list[tuple[int, int, int]]:
    """Returns mistakes, the most confident first: the image, the class wrongly said, and the one that is true.

    Of several labels it is the worst question of each image, and both are that label.
    """
    judged, predictions = evaluation.judged, evaluation.predictions
    if isinstance(judged, JudgedSeveral):
        wrong = judged.said != predictions.labels
        away = np.where(wrong, np.abs(judged.probabilities - predictions.labels), -1)
        label = away.argmax(1)
        size = away[np.arange(len(label)), label]
        order = [int(i) for i in np.argsort(-size, kind="stable")[: 4 * _SHOWN] if size[i] >= 0]
        return [(i, int(label[i]), int(label[i])) for i in order]
    at = np.flatnonzero(~judged.right)
    order = at[np.argsort(-judged.confidence[at], kind="stable")][: 4 * _SHOWN].tolist()
    said = predictions.said
    return [(i, int(said[i]), int(predictions.labels[i])) for i in order]


def _reasons(evaluation: Evaluation, shown: Images, cases: list[tuple[int, int, int]]) -> list[list[str | None]]:
    """Returns overlays for the wrong answer and the right one of each case; nothing where there is nobody to ask."""
    classifier = evaluation.classifier
    if classifier is None:
        return []
    originals = [_small(shown.original(i)) for i, _, _ in cases]
    there = [image for image in originals if image is not None]
    if not there:
        return []
    blank = np.zeros_like(there[0])
    filled = [blank if image is None else image for image in originals]
    found: list[list[str | None]] = [[] for _ in cases]
    for column in (1, 2) if any(wrong != right for _, wrong, right in cases) else (1,):
        explained = classifier.explain_batch(filled, [case[column] for case in cases])
        for row, original, each in zip(found, originals, explained, strict=True):
            row.append(None if original is None else _overlaid(original, each.heat))
    return found


def _overlaid(original: np.ndarray, heat: np.ndarray) -> str:
    return data_uri(thumbnail(overlay(original, heat)))


def _small(original: np.ndarray | None) -> np.ndarray | None:
    """Returns an image that is no larger than a page needs; one of many megapixels would take its time thrice."""
    if original is None or max(original.shape[:2]) <= _SIDE:
        return original
    reduced = Image.fromarray(original)
    reduced.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return np.asarray(reduced)


def _true(evaluation: Evaluation, number: int) -> str:
    return labels_text(evaluation.predictions, number)


def labels_text(predictions: Predictions, number: int) -> str:
    """Returns the name of an image's class, or of its classes."""
    names = predictions.class_names
    if not predictions.several_labels:
        return names[predictions.labels[number]]
    return ", ".join(names[i] for i in np.flatnonzero(predictions.labels[number]).tolist()) or "none"


def _verdict(evaluation: Evaluation, number: int, label: int) -> str:
    return "not said, and it has it:" if evaluation.predictions.labels[number, label] else "said, and it has it not:"


def label_errors(evaluation: Evaluation, shown: Images) -> Section:
    """Returns images whose label may be wrong, the most doubtful first."""
    found, predictions = evaluation.judged.suspects, evaluation.predictions
    if not len(found.example):
        return Section("Labels that may be wrong", "", "labels")
    several = isinstance(evaluation.judged, JudgedSeveral)
    cells = [
        image(shown.uri(i), _doubt(evaluation, found, k, i, several=several), shown.name(i))
        for k, i in enumerate(found.example[:_SUSPECTS].tolist())
    ]
    count = len(np.unique(found.example))
    html = paragraph(
        f"{count:,} of {len(predictions):,}: to the model the image is of another class, with at least the probability "
        "that images of that class have on average (confident learning, Northcutt et al. 2021). Some are the model's "
        "mistakes and some the label's: look at each. A wrong label makes the model look worse than it is.",
        "dim",
    )
    more = f" The {_SUSPECTS} most doubtful are shown." if len(found.example) > _SUSPECTS else ""
    return Section(
        "Labels that may be wrong", html + (paragraph(more, "dim") if more else "") + images(cells), "labels"
    )


def _doubt(evaluation: Evaluation, found: Suspects, position: int, number: int, *, several: bool) -> str:
    names, row = evaluation.predictions.class_names, evaluation.judged.probabilities[number]
    label, other = int(found.label[position]), int(found.other[position])
    name = escape(shown_name(evaluation, number))
    if several:
        has = bool(evaluation.predictions.labels[number, label])
        what = "labelled so" if has else "not labelled so"
        return f"<b>{escape(names[label])}</b>, {what}: {percent(float(row[label]))}<br>{name}"
    return (
        f"labelled <b>{escape(names[label])}</b>; rather <b>{escape(names[other])}</b> "
        f"({percent(float(row[other]), 0)})<br>{name}"
    )


def shown_name(evaluation: Evaluation, number: int) -> str:
    return evaluation.predictions.paths[number]
