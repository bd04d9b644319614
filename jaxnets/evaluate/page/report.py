"""The whole report of an evaluation: the page, and the PNGs that lie beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxnets.evaluate.page import calibration, classes, confusions, cost, curves, mistakes, overview
from jaxnets.evaluate.page.document import document
from jaxnets.evaluate.page.images import Images
from jaxnets.evaluate.page.section import Section
from jaxnets.evaluate.run import Evaluation
from jaxnets.evaluate.single_label import Judged


@dataclass(frozen=True)
class Report:
    html: str
    files: dict[str, bytes] = field(default_factory=dict)  # PNGs by name


def report(evaluation: Evaluation, measured: cost.Cost | None, more: Sequence[Section] = ()) -> Report:
    """Returns the report.

    Args:
        evaluation: what it is of.
        measured: what the model costs; None leaves that out.
        more: sections of other commands' making, which come before learning curves and cost.
    """
    shown = Images(evaluation.predictions, evaluation.examples)
    sections = [
        overview.summary(evaluation),
        classes.classes(evaluation),
        *([confusions.confusions(evaluation, shown)] if isinstance(evaluation.judged, Judged) else []),
        curves.thresholds(evaluation),
        calibration.calibration(evaluation),
        mistakes.mistakes(evaluation, shown),
        mistakes.label_errors(evaluation, shown),
        *more,
        curves.learning(evaluation),
        *([cost.cost(measured)] if measured is not None else []),
    ]
    html = document(overview.title(evaluation), overview.head(evaluation), sections)
    return Report(html, {name: content for section in sections for name, content in section.files.items()})
