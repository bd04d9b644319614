"""Writes the report of an evaluation: metrics.json, the table of predictions, and unless it is left out the page."""

from collections.abc import Sequence

import numpy as np

from jaxnets.evaluate.files import metrics_text, write_file
from jaxnets.evaluate.page.section import Section
from jaxnets.evaluate.predictions_file import as_csv, as_parquet, named
from jaxnets.evaluate.run import Evaluation
from jaxnets.evaluate.several_labels import JudgedSeveral
from jaxnets.run.storage import Place

METRICS, PAGE, TABLE, PARQUET = "metrics.json", "index.html", "predictions.csv", "predictions.parquet"


def write_report(
    evaluation: Evaluation,
    folder: Place,
    *,
    page: bool = True,
    parquet: bool = False,
    more: Sequence[Section] = (),
) -> list[str]:
    """Writes into a folder; files of the same names are replaced, each at once.

    Args:
        evaluation: what is reported.
        folder: in a directory, or in a bucket.
        page: whether the page and its PNGs are drawn, and the model's cost is measured for it.
        parquet: whether the table of predictions is a Parquet file rather than CSV.
        more: sections of the page beside its own.

    Returns:
        The names of the chief files.

    Raises:
        UserError: if one cannot be written.
    """
    metrics = evaluation.metrics
    names = [METRICS, PARQUET if parquet else TABLE]
    write_table(evaluation, folder / names[1], parquet=parquet)
    if page:
        from jaxnets.evaluate.page.cost import as_json, measure
        from jaxnets.evaluate.page.report import report

        measured = measure(evaluation)
        metrics = {**metrics, "cost": as_json(measured)}
        drawn = report(evaluation, measured, more)
        for name, content in drawn.files.items():
            write_file(folder / name, content)
        write_file(folder / PAGE, drawn.html.encode("utf-8", "backslashreplace"))
        names = [PAGE, *names]
    write_file(folder / METRICS, metrics_text(metrics).encode())
    return names


def write_table(evaluation: Evaluation, file: Place, *, parquet: bool) -> None:
    """Writes what was said of each image."""
    predictions, judged = evaluation.predictions, evaluation.judged
    # Labels are written as the run's own table has them, where it has one.
    separator = evaluation.config.data.table.separator or ";"
    said = judged.said if isinstance(judged, JudgedSeveral) else predictions.said
    words = [named(np.asarray(chosen), predictions.class_names, separator) for chosen in (predictions.labels, said)]
    as_table = as_parquet if parquet else as_csv
    write_file(file, as_table(predictions, judged.probabilities, judged.confidence, *words))
