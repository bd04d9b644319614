"""The card's words, a function for each of its sections."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxnets.evaluate.card.facts import Facts
from jaxnets.evaluate.card.public import public_source
from jaxnets.run.directory import ModelCard
from jaxnets.schema import written

UNKNOWN = "*not known*"
_CLASSES = 40  # of the table of classes
_NAMED = 20  # classes in a sentence
_WORST = 5  # confusions

_FIGURES = {  # of metrics.json: in words, and whether it is a share
    "accuracy": ("accuracy", True),
    "top5": ("top-5 accuracy", True),
    "balanced_accuracy": ("balanced accuracy (every class counting the same)", True),
    "mean_average_precision": ("mean average precision over the classes", True),
    "macro_precision": ("precision, mean over the classes", True),
    "macro_recall": ("recall, mean over the classes", True),
    "macro_f1": ("F1, mean over the classes", True),
    "micro_f1": ("F1 over all labels", True),
    "weighted_f1": ("F1, classes weighted by their images", True),
    "hamming_loss": ("Hamming loss", True),
    "matthews": ("Matthews correlation", False),
    "roc_auc": ("area under the ROC curve, mean over the classes", False),
    "pr_auc": ("area under the precision-recall curve, mean over the classes", False),
    "log_loss": ("log-loss", False),
    "brier": ("Brier score", False),
}


def body(facts: Facts) -> str:
    """Returns the card below its metadata, as Markdown."""
    sections = (
        _head(facts),
        _use(facts),
        _data(facts),
        _recipe(facts),
        _metrics(facts),
        _calibration(facts),
        _limits(facts),
        _cost(facts),
        _not_known(facts),
    )
    return "\n\n".join(sections) + "\n"


def _head(facts: Facts) -> str:
    model, seen = facts.model, facts.model.preprocess
    colours = "grey" if seen.channels == 1 else "RGB"
    classes = f"{len(model.class_names):,} classes"
    has = "has, any number or none" if model.several_labels else "shows"
    what = f"which of {classes} an image {has}"
    return (
        f"# {plain(facts.title)}\n\n"
        f"An image classifier, which says {what}: {_listed(model.class_names)}. It sees "
        f"{seen.height} × {seen.width} {colours} pixels. The network is "
        f"`{model.name}` with {facts.parameters:,} parameters, trained by jaxnets, in JAX."
    )


def _use(facts: Facts) -> str:
    lines = [
        "## How to use it",
        "",
        "With jaxnets installed (`pip install -e .` in a checkout of its repository):",
        "",
        "```python",
        "import jaxnets",
        "",
        f'classifier = jaxnets.load("hf:{facts.repository}")  # or the folder that these files lie in',
        'probabilities = classifier.predict("IMAGE.jpg")  # [1, classes]; paths, PIL images and arrays alike',
        "print(classifier.labels_of(probabilities))",
        "```",
        "",
        "```bash",
        f"python -m jaxnets.predict --model hf:{facts.repository} IMAGE.jpg",
        "```",
    ]
    if facts.timm is not None:
        lines += [
            "",
            f"The weights are also there in timm's layout (its `{facts.timm}`):",
            "",
            "```python",
            "import timm",
            "",
            f'model = timm.create_model("hf-hub:{facts.repository}", pretrained=True).eval()  # answers with logits',
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)",
            "```",
        ]
    temperature = facts.model.temperature
    seen = facts.model.preprocess
    how = {"crop": "its centre is cropped", "pad": "bars are laid around it", "squeeze": "its aspect is given up"}
    rows, columns = seen.resized_sides
    cropped = "" if seen.crop_fraction == 1 else f", of which the central {seen.height} × {seen.width} are seen"
    lines += [
        "",
        f"Images are resized to {rows} × {columns} ({seen.interpolation}, antialiased; of another aspect, "
        f"{how[seen.fitting]}){cropped}; pixels as 0…1, less the mean {_numbers(seen.mean)}, over the deviation "
        f"{_numbers(seen.std)}. Probabilities are the {facts.model.activation} of the logits"
        + (f" divided by {temperature:.4g}" if temperature else "")
        + ". `jaxnets.load` does all of that; `model.json` says it.",
    ]
    return "\n".join(lines)


def _data(facts: Facts) -> str:
    source, counts = facts.source, facts.model.data
    name = (
        f"[{plain(source.name)}](https://huggingface.co/datasets/{source.hub_id})"
        if source.hub_id
        else (f"**{plain(source.name)}**")
    )
    sizes = ", ".join(f"{counts[key]:,} for {word}" for key, word in _SPLITS.items() if key in counts)
    lines = [
        "## Data",
        "",
        f"{name}: {source.kind}. Images: {sizes or UNKNOWN}.",
    ]
    if "validation" in counts:
        lines.append("The validation images chose the checkpoint, and were not trained on.")
    elif facts.has_test:
        lines.append("There was no validation split: no image but those for testing was kept from the training.")
    return "\n".join(lines)


_SPLITS = {"train": "training", "validation": "validation", "test": "testing"}


def _recipe(facts: Facts) -> str:
    from jaxnets.evaluate.card.public import public_settings

    config = facts.config
    settings = public_settings(config)
    rows = [(f"`{key}`", f"`{_code(written(value))}`") for key, value in settings.items()]
    start = (
        "from random weights"
        if config.model.pretrained is None
        else (f"from the weights `{_code(str(settings['model.pretrained']))}`")
    )
    train = facts.model.data.get("train")
    epochs = f", {facts.images_seen / train:.3g} passes over the training images" if train else ""
    return "\n".join(
        [
            "## Recipe",
            "",
            f"Trained {start} for {facts.step:,} steps of {config.batch_size:,} images{epochs}. What differs from the "
            f"defaults of jaxnets{f' {facts.version}' if facts.version else ''}:",
            "",
            *_table(("key", "value"), rows),
        ]
    )


def _metrics(facts: Facts) -> str:
    found = facts.metrics
    lines = ["## Metrics", ""]
    if found is None:
        lines.append(f"Of these weights on images for testing: {UNKNOWN}; they were not evaluated.")
        if facts.validation:
            figures = {key: facts.validation[key] for key in _FIGURES if _is_number(facts.validation.get(key))}
            lines.append("While it was trained, on the validation images, which chose this checkpoint:")
            lines += [
                "",
                *_table(("figure", "value"), [(_FIGURES[key][0], _value(key, figures[key])) for key in figures]),
            ]
        return "\n".join(lines)
    where = public_source(str(found.get("source") or facts.config.data.source)).name
    lines.append(f"On {found['count']:,} images of the {found['split']} split of {plain(where)}:")
    keys = [key for key in _FIGURES if _is_number(found.get(key)) and (key != "micro_f1" or facts.model.several_labels)]
    rows = [(_FIGURES[key][0], _value(key, found[key])) for key in keys]
    if facts.model.several_labels and keys[:1] == ["accuracy"]:
        rows[0] = ("all labels of an image right", rows[0][1])
    if rows and (interval := found.get("interval")):
        rows[0] = (rows[0][0], f"{rows[0][1]} ({_interval(interval)})")
    lines += ["", *_table(("figure", "value"), rows), "", *_classes(found)]
    if worst := _confusions(found):
        lines += ["", "Most often taken for another: " + "; ".join(worst) + "."]
    return "\n".join(lines)


def _interval(interval: Mapping[str, Any]) -> str:
    share = f"{interval['confidence']:.0%}"
    how = {"wilson": "Wilson"}.get(interval["method"], interval["method"])
    return f"{share} interval {interval['low']:.2%} to {interval['high']:.2%}, {how}"


def _classes(found: Mapping[str, Any]) -> list[str]:
    """Returns the table of classes; of many the worst."""
    per_class: Mapping[str, Mapping[str, Any]] = found.get("per_class") or {}
    rows = [(name, row) for name, row in per_class.items() if _support(row)]
    if not rows:
        return []
    key = "f1" if any(_is_number(row.get("f1")) for _, row in rows) else "accuracy"
    order = sorted(rows, key=lambda named: (named[1].get(key) is None, named[1].get(key) or 0.0))
    kinds = ("precision", "recall", "f1") if key == "f1" else ("accuracy",)
    columns = [name for name in kinds if any(name in row for _, row in rows)]
    shown = order[:_CLASSES]
    cells = [
        (plain(name), f"{_support(row):,}", *(_percent(row.get(column)) for column in columns)) for name, row in shown
    ]
    intro = "Of each class, the worst first" + (
        f" ({len(shown)} of {len(order):,}):" if len(shown) < len(order) else ":"
    )
    return [intro, "", *_table(("class", "images", *(column.replace("f1", "F1") for column in columns)), cells)]


def _support(row: Mapping[str, Any]) -> int:
    return int(row.get("support", row.get("count", 0)))


def _confusions(found: Mapping[str, Any]) -> list[str]:
    """Returns the pairs of classes that are most often confused, in words."""
    matrix, names = found.get("confusion"), list(found.get("per_class") or {})
    if not isinstance(matrix, list) or len(matrix) != len(names) or any(len(row) != len(names) for row in matrix):
        return []  # of several labels it is another
    if any(isinstance(cell, list) for row in matrix for cell in row):
        return []
    pairs = sorted(
        ((count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    totals = [sum(row) for row in matrix]
    return [f"{plain(names[i])} for {plain(names[j])} ({n:,} of {totals[i]:,})" for n, i, j in pairs[:_WORST]]


def _calibration(facts: Facts) -> str:
    model, found = facts.model, facts.metrics or {}
    lines = ["## Calibration", ""]
    if model.temperature:
        lines.append(
            f"Logits are divided by the temperature {model.temperature:.4g}, which was fitted on {_fitted(model)}: "
            "`jaxnets.load` answers with calibrated probabilities, and a program that takes the logits has "
            "to divide them itself."
        )
    else:
        lines.append("No temperature was fitted: a probability is what the network says, and may be too sure.")
    if _is_number(found.get("ece")):
        without = (found.get("uncalibrated") or {}).get("ece")
        before = f" (without the temperature {without:.2%})" if _is_number(without) else ""
        lines.append(
            f"Expected calibration error {found['ece']:.2%}{before} on the {found['split']} split: how far the "
            "confidence is from the share of answers that are right, on average."
        )
    else:
        lines.append(f"Expected calibration error: {UNKNOWN}.")
    if model.several_labels:
        lines.append(
            "A label is said above a probability of its own (`thresholds` in model.json)."
            if model.thresholds
            else "A label is said above a probability of one half."
        )
    lines.append(_refusal(facts))
    return "\n".join(lines)


def _fitted(model: ModelCard) -> str:
    """Returns what a temperature and bounds were fitted on."""
    on = model.fitted_on
    return "images that were not trained on" if on is None else f"{on.images:,} images of the {on.split} split"


def _refusal(facts: Facts) -> str:
    refusal = facts.model.refusal
    bounds = (
        ()
        if refusal is None
        else (
            ("the confidence is below", refusal.probability),
            ("the energy is above", refusal.energy),
            ("the distance from the training images is above", refusal.distance),
        )
    )
    parts = [f"{words} {bound:.4g}" for words, bound in bounds if bound is not None]
    said = "It never answers 'none of these': of an image of another kind it names one of its classes all the same."
    if refusal is not None and parts:
        wanted = f" (chosen for: {plain(refusal.wanted)})" if refusal.wanted else ""
        said = f"It answers 'none of these' where {' or '.join(parts)}{wanted}."
    if refusal is not None and refusal.conformal is not None:
        said += (
            f" With an answer comes the set of the classes that it may be, which holds the right one of "
            f"{refusal.conformal.coverage:.0%} of images like those that it was chosen on."
        )
    return said


def _limits(facts: Facts) -> str:
    model, found = facts.model, facts.metrics or {}
    per_class: Mapping[str, Mapping[str, Any]] = found.get("per_class") or {}
    limits = [
        f"It knows its {len(model.class_names):,} classes and nothing else.",
        "The figures hold for images like those that it was tested on: the same sources, cameras and choice. Of other "
        "images they say nothing.",
    ]
    recalls: dict[str, Any] = {name: row.get("recall") for name, row in per_class.items() if _support(row)}
    weak = [name for name, recall in recalls.items() if _is_number(recall) and recall < 0.5]
    if weak:
        limits.append(f"It misses more than half of the images of {_listed(weak)}.")
    few = [name for name, row in per_class.items() if 0 < _support(row) < 20]
    if few:
        limits.append(f"Figures of {_listed(few)} rest on fewer than 20 images, and are chance in good part.")
    none = [name for name, row in per_class.items() if not _support(row)]
    if none:
        limits.append(f"There was no image of {_listed(none)} to test on.")
    if found and found.get("split") != "test":
        limits.append(f"The figures are of the {found['split']} split, which had a part in the training.")
    return "\n".join(["## Limits", "", *(f"- {limit}" for limit in limits)])


def _cost(facts: Facts) -> str:
    rows = [
        ("parameters", f"{facts.parameters:,}"),
        ("multiply-adds of one image", f"{facts.multiply_adds:,}"),
        ("size of the weights", f"{4 * facts.parameters / 2**20:.1f} MiB in float32"),
    ]
    if facts.images_per_second:
        hours = facts.images_seen / facts.images_per_second / 3600
        spent = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
        spent = spent if hours >= 1 / 60 else f"{3600 * hours:.0f} seconds"
        rows.append(
            ("training", f"about {spent} at {facts.images_per_second:,.0f} images a second, evaluations left out")
        )
    else:
        rows.append(("training", UNKNOWN))
    if measured := (facts.metrics or {}).get("cost"):
        where = f"{plain(str(measured['device']))}, {plain(str(measured['engine']))}"
        rows.append(
            ("answering one image", f"{measured['latency_ms']:.2f} ms ({where}), without reading and resizing it")
        )
    rows.append(("hardware of the training, energy", UNKNOWN))
    return "\n".join(["## Cost", "", *_table(("what", "cost"), rows)])


def _not_known(facts: Facts) -> str:
    asked = [
        ("License", "of the weights, and of the images that they were trained on"),
        ("Images", "who took them, of whom or what, and whether those were asked"),
        ("Intended use", "what it was made for, and what it must not be used for"),
        ("Groups", "whether it is as good for all people, places and devices"),
        ("Robustness", "to blur, noise, compression and other light"),
    ]
    found = facts.metrics or {}
    known = {"Groups": bool(found.get("by_group") or found.get("groups")), "Robustness": bool(found.get("corruptions"))}
    return "\n".join(
        [
            "## Not known",
            "",
            "This card was written by a program from what the run noted. It knows nothing of the following, which "
            "whoever publishes the model should say here:",
            "",
            *(f"- **{name}**, {what}: {UNKNOWN}" for name, what in asked if not known.get(name)),
        ]
    )


def plain(text: str) -> str:
    """Returns a stranger's text as Markdown that shows it as it is, on one line."""
    line = " ".join(str(text).split())
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """Returns text for between backticks, within a table."""
    return " ".join(text.split()).replace("`", "'").replace("|", "\\|")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(plain(name) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _value(key: str, value: float) -> str:
    return f"{value:.2%}" if _FIGURES[key][1] else f"{value:.4g}"


def _percent(value: Any) -> str:
    return f"{value:.2%}" if _is_number(value) else "—"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
