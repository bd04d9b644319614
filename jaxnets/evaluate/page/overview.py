"""The head of the page: how good, how sure, on what; then all figures in one table."""

from collections.abc import Mapping
from html import escape
from typing import Any

from jaxnets.evaluate.page.section import Section, number, paragraph, percent, table, tile, tiles
from jaxnets.evaluate.run import Evaluation
from jaxnets.evaluate.several_labels import JudgedSeveral

# Keys of metrics.json as a person reads them: name, what it is, whether it is a share.
_FIGURES: tuple[tuple[str, str, str, bool], ...] = (
    ("accuracy", "accuracy", "share of images answered rightly", True),
    ("top5", "top-5 accuracy", "share of images whose class is among the five most probable", True),
    ("balanced_accuracy", "balanced accuracy", "mean recall: every class counts the same", True),
    ("mean_average_precision", "mean average precision", "over the classes; needs no threshold", True),
    ("hamming_loss", "Hamming loss", "share of all yes-or-no questions answered wrongly", True),
    ("matthews", "Matthews' correlation", "1 perfect, 0 as good as chance", False),
    ("roc_auc", "ROC-AUC", "one class against the rest, mean over the classes; 0.5 is chance", False),
    ("pr_auc", "PR-AUC", "average precision, one class against the rest, mean over the classes", False),
    ("loss", "loss", "that of training, without smoothing and mixing", False),
    ("log_loss", "log-loss", "mean of −log of the probability of what is true", False),
    ("brier", "Brier score", "mean squared error of the probabilities; 0 is perfect", False),
    ("ece", "calibration error (ECE)", "mean distance of confidence and accuracy, in 15 bins", True),
    ("maximal_calibration_error", "largest calibration error", "of any bin; few images make it large", True),
    ("aurc", "area under risk and coverage", "mean share of wrong answers when only the surest are given", True),
)
_ALL_RIGHT = "share of images with all their labels said and no other"  # what accuracy is where there are several
_AVERAGED = ("macro", "micro", "weighted")


def head(evaluation: Evaluation) -> str:
    """Returns what stands above the sections: the run in a sentence, the chief figures and what to know about them."""
    metrics = evaluation.metrics
    step = "" if metrics["step"] is None else f", step {metrics['step']:,}"
    what = f"{metrics['model']}{step} on {metrics['count']:,} images of {metrics['source']}, {metrics['split']}"
    chief = _chief_of_several(metrics) if isinstance(evaluation.judged, JudgedSeveral) else _chief(metrics)
    notes = "".join(f"<li>{escape(note)}</li>" for note in metrics["notes"])
    return (
        f"{paragraph(what, 'dim')}{tiles(chief)}{paragraph(_in_words(evaluation))}"
        f"<details><summary>What the data is, and how it was judged</summary><ul class=dim>{notes}</ul></details>"
    )


def title(evaluation: Evaluation) -> str:
    return f"{evaluation.run.path.name or evaluation.run.path}: evaluation"


def summary(evaluation: Evaluation) -> Section:
    """Returns all figures of the split as one table."""
    metrics = evaluation.metrics
    names = {"accuracy": ("all labels right", _ALL_RIGHT)} if isinstance(evaluation.judged, JudgedSeveral) else {}
    rows = [
        (shown, percent(metrics[key], 2) if share else number(metrics[key], 4), what)
        for key, name, about, share in _FIGURES
        for shown, what in (names.get(key, (name, about)),)
        if key in metrics
    ]
    averaged = [
        (kind, *(percent(metrics[f"{kind}_{key}"], 2) for key in ("precision", "recall", "f1")))
        for kind in _AVERAGED
        if f"{kind}_precision" in metrics
    ]
    html = table(("figure", "value", "what it is"), rows, numbers=(1,))
    html += "<h3>Precision, recall and F1</h3>"
    html += table(("averaged", "precision", "recall", "F1"), averaged, numbers=(1, 2, 3))
    html += paragraph(
        "macro: the mean over the classes; micro: over all answers together; weighted: over the classes, each by its "
        "number of images. The same figures are in metrics.json, and what was said of each image in predictions.csv.",
        "dim",
    )
    return Section("All figures", html, "figures")


def interval_text(metrics: Mapping[str, Any]) -> str:
    interval = metrics["interval"]
    how = ", by group" if interval["method"] != "wilson" else ""
    return f"95 % interval {100 * interval['low']:.1f} to {percent(interval['high'])}{how}"


def _chief(metrics: Mapping[str, Any]) -> list[str]:
    top5 = [tile(percent(metrics["top5"]), "top-5 accuracy")] if "top5" in metrics else []
    return [
        tile(percent(metrics["accuracy"]), "accuracy", interval_text(metrics)),
        *top5,
        tile(percent(metrics["macro_f1"]), "macro F1", "every class counts the same"),
        tile(percent(metrics["balanced_accuracy"]), "balanced accuracy", "mean recall of the classes"),
        tile(number(metrics["roc_auc"]), "ROC-AUC", "0.5 is chance"),
        tile(percent(metrics["ece"]), "calibration error", f"log-loss {number(metrics['log_loss'])}"),
    ]


def _chief_of_several(metrics: Mapping[str, Any]) -> list[str]:
    return [
        tile(percent(metrics["mean_average_precision"]), "mean average precision", "needs no threshold"),
        tile(percent(metrics["macro_f1"]), "macro F1", "every class counts the same"),
        tile(percent(metrics["micro_f1"]), "micro F1", "all labels together"),
        tile(percent(metrics["accuracy"]), "all labels right", interval_text(metrics)),
        tile(percent(metrics["hamming_loss"], 2), "Hamming loss", "labels wrongly said or not said"),
        tile(percent(metrics["ece"]), "calibration error", f"log-loss {number(metrics['log_loss'])}"),
    ]


def _in_words(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    count, correct = metrics["count"], metrics["correct"]
    if isinstance(evaluation.judged, JudgedSeveral):
        return f"Of {count:,} images, {correct:,} have all their labels said and no other."
    said = f"Of {count:,} images {correct:,} are answered rightly ({interval_text(metrics)})."
    gap = metrics["mean_confidence"] - metrics["accuracy"]
    sure = f"The model is {percent(metrics['mean_confidence'])} sure on average"
    if abs(gap) < 0.01:
        return f"{said} {sure}, which is about as often as it is right."
    word = "more sure than it should be" if gap > 0 else "less sure than it could be"
    return f"{said} {sure} and right in {percent(metrics['accuracy'])}: it is {word}."
