"""A judgement as one HTML page: what has drifted, by which test, and each feature drawn over time."""

import itertools
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from jaxnets import figures
from jaxnets.evaluate.page.document import document
from jaxnets.evaluate.page.section import Section, drawing, number, paragraph, percent, side_by_side, table, tile, tiles
from jaxnets.monitor.accuracy import Accuracy
from jaxnets.monitor.judge import FEATURES, TESTS, Judgement, Test, classes_of, values_of
from jaxnets.monitor.log import shown
from jaxnets.trust.refusal import NONE_OF_THESE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 40
_SLICES = 60  # of the window's time
_DRAWN = 20_000  # points of a sample that a drawing is made of
_CLASSES = 24  # drawn, those whose shares have changed most
_POINTS = 1000  # embeddings


def page(judgement: Judgement) -> str:
    """Returns the page."""
    about = judgement.window.about
    step = "" if about.step is None else f", step {about.step}"
    since, until = map(shown, judgement.span)
    head = paragraph(
        f"{about.architecture}{step}. {len(judgement.window):,} records from {since} to {until} UTC, against "
        f"{len(judgement.reference):,} of the reference.",
        "dim",
    )
    crossed = ", ".join(judgement.crossed)
    head += (
        f"<p class=bad><b>Drift: {escape(crossed)}.</b></p>"
        if crossed
        else "<p class=good><b>No bound is crossed.</b></p>"
    )
    head += tiles(_tiles(judgement))
    sections = [_tests(judgement), _features(judgement), _classes(judgement), _embedding(judgement), _notes(judgement)]
    return document(f"{about.model}: is it as it was?", head, sections)


def _tiles(judgement: Judgement) -> list[str]:
    def share(found: Accuracy | None) -> str:
        return "–" if found is None else percent(found.share)

    def said(found: Accuracy | None, nothing: str) -> str:
        if found is None:
            return nothing
        return f"{percent(found.interval.low)} … {percent(found.interval.high)}, {found.count:,} images; {found.how}"

    latency = judgement.window.rows["latency"]
    finite = latency[np.isfinite(latency)]
    return [
        tile(share(judgement.real), "real accuracy", said(judgement.real, "no labels have come")),
        tile(share(judgement.expected), "expected accuracy", said(judgement.expected, "one label an image only")),
        tile(share(judgement.reference_accuracy), "of the reference", said(judgement.reference_accuracy, "no labels")),
        tile(percent(float(judgement.window.rows["refused"].mean())), f"answered '{NONE_OF_THESE}'",
             f"{percent(float(judgement.reference.rows['refused'].mean()))} of the reference"),
        tile(f"{1000 * np.quantile(finite, 0.99):.0f} ms" if len(finite) else "–", "latency, 99 %",
             f"half within {1000 * np.median(finite):.0f} ms" if len(finite) else ""),
    ]  # fmt: skip


def _tests(judgement: Judgement) -> Section:
    rows = [
        (
            test.feature,
            TESTS[test.kind],
            number(test.outcome.statistic),
            number(test.outcome.effect),
            *((number(test.distances.psi), number(test.distances.wasserstein)) if test.distances else ("–", "–")),
            _p(test.adjusted),
            "drift" if test.drifts else "",
        )
        for test in judgement.tests
    ]
    html = table(
        ("", "test", "statistic", "effect", "PSI", "Wasserstein", "p, adjusted", ""), rows, numbers=(2, 3, 4, 5, 6)
    )
    html += paragraph(
        f"A test says drift where its probability, adjusted by Holm's method for there being {len(judgement.tests)} "
        f"tests, is below {judgement.bounds.alpha:g}, and the effect is at least {judgement.bounds.effect:g}: so a "
        "window without drift raises a false alarm that often at most. The effect is the largest gap of two "
        "distributions, the share of images of other classes, or 2 · AUC − 1; the discrepancy's has no bound. The PSI "
        "is little below 0.1 and much above 0.25, by a rule of thumb; of few records chance alone makes it larger. "
        "Wasserstein's distance is in the reference's standard deviations.",
        "dim",
    )
    return Section("Tests", html, "tests")


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _features(judgement: Judgement) -> Section:
    by_name = {test.feature: test for test in judgement.tests}
    parts = []
    for name, feature in FEATURES.items():
        if name in by_name:
            parts.append(drawing(_draw(judgement, name, by_name[name]), feature.title, feature.unit))
    return Section("Features", side_by_side(parts), "features")


def _draw(judgement: Judgement, name: str, test: Test) -> "Figure":
    """Returns a feature's two distributions, and below its tenths over the window's time."""
    reference, window = (_some(values_of(name, one.rows)) for one in (judgement.reference, judgement.window))
    low, high = np.quantile(np.concatenate([reference, window]), [0.002, 0.998])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    figure = figures.new_figure(4.6, 3.6)
    above, below = figure.subplots(2)
    edges = np.linspace(low, high, _BINS + 1)
    for values, colour, label in ((reference, figures.GREY, "reference"), (window, figures.BLUE, "window")):
        counts = np.histogram(np.clip(values, low, high), edges)[0] / max(len(values), 1)
        above.stairs(counts, edges, color=colour, fill=colour == figures.GREY, alpha=0.8, label=label)
    mark = "drift" if test.drifts else "as it was"
    above.set(ylabel="share", title=f"{FEATURES[name].title}: {mark}")
    above.legend(loc="upper left" if name == "confidence" else "upper right")
    hours, tenths = _over_time(judgement, name)
    below.axhspan(*np.quantile(reference, [0.1, 0.9]), color=figures.GREY, alpha=0.25, linewidth=0)
    below.axhline(float(np.median(reference)), color=figures.GREY, linewidth=1)
    below.fill_between(hours, tenths[0], tenths[2], color=figures.BLUE, alpha=0.25, linewidth=0)
    below.plot(hours, tenths[1], color=figures.BLUE)
    below.set(xlabel=_axis(judgement), ylabel="median, 80 %")
    return figure


def _some(values: np.ndarray) -> np.ndarray:
    if len(values) <= _DRAWN:
        return values
    return values[np.random.default_rng(0).choice(len(values), _DRAWN, replace=False)]


def _unit(judgement: Judgement) -> tuple[str, float]:
    seconds = judgement.span[1] - judgement.span[0]
    return next((name, size) for name, size, least in _UNITS if seconds >= least)


_UNITS = (
    ("days", 86400.0, 2 * 86400.0),
    ("hours", 3600.0, 2 * 3600.0),
    ("minutes", 60.0, 120.0),
    ("seconds", 1.0, 0.0),
)


def _axis(judgement: Judgement) -> str:
    return f"{_unit(judgement)[0]} from {shown(judgement.span[0])} UTC"


def _over_time(judgement: Judgement, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns times, in the unit of the axis, and the feature's 10 %, median and 90 % of as many records about each."""
    rows = judgement.window.rows
    values = np.asarray(FEATURES[name].of(rows), np.float64)
    slices = max(min(_SLICES, len(rows) // 50), 2)
    borders = np.linspace(0, len(rows), slices + 1).astype(int)
    times, tenths = [], []
    for start, end in itertools.pairwise(borders.tolist()):
        finite = values[start:end][np.isfinite(values[start:end])]
        if len(finite):
            times.append((rows["time"][start:end].mean() - judgement.span[0]) / _unit(judgement)[1])
            tenths.append(np.quantile(finite, [0.1, 0.5, 0.9]))
    return np.array(times), np.array(tenths).reshape(-1, 3).T


def _classes(judgement: Judgement) -> Section:
    labels = (*judgement.window.about.labels, NONE_OF_THESE)
    counts = [classes_of(records) for records in (judgement.reference, judgement.window)]
    shares = np.stack([each / max(each.sum(), 1) for each in counts])
    there = np.flatnonzero(shares.any(0))
    changed = np.argsort(-np.abs(shares[1] - shares[0])[there], kind="stable")
    chosen = np.sort(there[changed[:_CLASSES]])
    figure = figures.new_figure(4.6, 0.9 + 0.22 * max(len(chosen), 2))
    axes, at = figure.subplots(), np.arange(len(chosen))
    for offset, colour, label, row in ((-0.19, figures.GREY, "reference", 0), (0.19, figures.BLUE, "window", 1)):
        axes.barh(at + offset, 100 * shares[row][chosen], 0.36, color=colour, label=label)
    axes.set_yticks(at, [labels[i] if len(labels[i]) < 23 else f"{labels[i][:21]}…" for i in chosen])
    axes.set(xlabel="% of the answers", ylim=(len(chosen) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper right", ncols=2)
    some = f"The {len(chosen)} of {len(there):,} that have changed most. " if len(chosen) < len(there) else ""
    return Section("Classes", drawing(figure, "shares of classes", f"{some}Shares of what is answered."), "classes")


def _embedding(judgement: Judgement) -> Section:
    """Returns both samples in the plane of the reference's first two principal directions."""
    pair = [one.rows["projection"].astype(np.float64) for one in (judgement.reference, judgement.window)]
    pair = [each[np.isfinite(each).all(1)] for each in pair]
    if min(map(len, pair)) < 2:
        return Section("Embedding", "", "embedding")
    random = np.random.default_rng(0)
    pair = [random.permutation(each)[:_POINTS] for each in pair]
    mean = pair[0].mean(0)
    directions = np.linalg.svd(pair[0] - mean, full_matrices=False)[2][:2]
    figure = figures.new_figure(4.6, 3.6)
    axes = figure.subplots()
    for each, colour, label in zip(pair, (figures.GREY, figures.BLUE), ("reference", "window"), strict=True):
        x, y = directions @ (each - mean).T
        axes.scatter(x, y, s=5, color=colour, alpha=0.5, linewidths=0, label=label)
    axes.legend(loc="best", markerscale=2.5)
    caption = f"{_POINTS:,} records of each at most, along the first two principal directions of the reference."
    return Section("Embedding", drawing(figure, "projected embeddings", caption), "embedding")


def _notes(judgement: Judgement) -> Section:
    items = "".join(f"<li>{escape(note)}</li>" for note in judgement.notes)
    return Section("Notes", f"<ul>{items}</ul>" if items else "", "notes")
