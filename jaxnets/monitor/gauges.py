"""What a judgement is to Prometheus: a file of gauges in its text format, for node_exporter's textfile collector."""

import math
from collections.abc import Iterable

from jaxnets.monitor.judge import Judgement

_HELP = {
    "jaxnets_drift": "Whether a bound is crossed",
    "jaxnets_drift_test": "Whether a test says that the window is not as the reference",
    "jaxnets_drift_statistic": "Of a test, a distance or an index",
    "jaxnets_drift_p": "Probability of a test's statistic by chance, adjusted for there being several tests",
    "jaxnets_window_records": "Records of the window",
    "jaxnets_window_end_seconds": "When the last record of the window was made, since 1970",
    "jaxnets_accuracy": "Share of right answers: expected from confidence, real from labels, of the reference",
    "jaxnets_refused_share": "Share of the answers that are none of these",
}


def gauges(judgement: Judgement) -> str:
    """Returns the gauges of one model."""
    model = judgement.window.about.model
    lines: dict[str, list[str]] = {name: [] for name in _HELP}

    def add(name: str, value: float, **labels: str) -> None:
        if math.isfinite(value):
            said = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"model": model, **labels}.items())
            lines[name].append(f"{name}{{{said}}} {value:.9g}")

    add("jaxnets_drift", float(bool(judgement.crossed)))
    for test in judgement.tests:
        add("jaxnets_drift_test", float(test.drifts), feature=test.feature, test=test.kind)
        add("jaxnets_drift_p", test.adjusted, feature=test.feature, test=test.kind)
        add("jaxnets_drift_statistic", test.outcome.statistic, feature=test.feature, statistic=test.kind)
        for name, value in {} if test.distances is None else test.distances._asdict().items():
            add("jaxnets_drift_statistic", value, feature=test.feature, statistic=name)
    add("jaxnets_window_records", len(judgement.window))
    lines["jaxnets_window_end_seconds"].append(
        f'jaxnets_window_end_seconds{{model="{_escaped(model)}"}} {judgement.span[1]:.3f}'
    )
    kinds = {"expected": judgement.expected, "real": judgement.real, "reference": judgement.reference_accuracy}
    for kind, accuracy in kinds.items():
        if accuracy is not None:
            add("jaxnets_accuracy", accuracy.share, kind=kind)
    add("jaxnets_refused_share", float(judgement.window.rows["refused"].mean()))
    return "\n".join(_all(lines)) + "\n"


def _all(lines: dict[str, list[str]]) -> Iterable[str]:
    for name, each in lines.items():
        if each:
            yield f"# HELP {name} {_HELP[name]}"
            yield f"# TYPE {name} gauge"
            yield from each


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
