"""The card's metadata, in the YAML that the Hub reads: `huggingface_hub.ModelCardData`."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxnets.evaluate.card.facts import Facts
from jaxnets.evaluate.card.public import public_source

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_METRICS = {  # of metrics.json, and what the Hub calls them
    "accuracy": ("accuracy", "Accuracy"),
    "top5": ("accuracy", "Top-5 accuracy"),
    "balanced_accuracy": ("accuracy", "Balanced accuracy"),
    "macro_precision": ("precision", "Precision (macro)"),
    "macro_recall": ("recall", "Recall (macro)"),
    "macro_f1": ("f1", "F1 (macro)"),
    "micro_f1": ("f1", "F1 (micro)"),
    "mean_average_precision": ("map", "Mean average precision"),
    "roc_auc": ("roc_auc", "ROC-AUC (macro)"),
    "ece": ("ece", "Expected calibration error"),
    "brier": ("brier_score", "Brier score"),
}
_OWNED = re.compile(r"(?:[\w.=-]+[=@])?hf:(?P<name>[\w.-]+/[\w.-]+)(@[\w./-]+)?", re.ASCII)


def metadata(facts: Facts) -> str:
    """Returns the YAML between the card's lines of dashes. There is no license in it: none is known."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="jaxnets",
        pipeline_tag="image-classification",
        tags=["image-classification", "jax", "flax", "jaxnets", facts.model.name, *(["timm"] if facts.timm else [])],
        datasets=[facts.source.hub_id] if facts.source.hub_id else None,
        base_model=_base(facts.config.model.pretrained),
        metrics=_kinds(facts.metrics),
        model_name=f"{facts.model.name}-{slug(facts.source.name)}",
        eval_results=_results(facts) or None,
    )
    if data.eval_results is None:
        data.model_name = None  # it is of the results
    return data.to_yaml()


def _results(facts: Facts) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    found = facts.metrics or {}
    if not found:
        return []
    source = public_source(str(found.get("source") or facts.config.data.source))
    return [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=source.hub_id or slug(source.name),
            dataset_name=source.name,
            dataset_config=source.hub_config,
            dataset_revision=source.hub_revision,
            dataset_split=str(found["split"]),
            metric_type=kind,
            metric_name=name,
            metric_value=float(found[key]),
        )
        for key, (kind, name) in _METRICS.items()
        if _is_finite(found.get(key)) and (key != "micro_f1" or facts.model.several_labels)
    ]


def _kinds(found: Mapping[str, Any] | None) -> list[str] | None:
    kinds = [kind for key, (kind, _) in _METRICS.items() if found and _is_finite(found.get(key))]
    return list(dict.fromkeys(kinds)) or None


def _base(pretrained: str | None) -> str | None:
    """Returns the Hub's name of the model that this one comes from, where it comes from there."""
    match = _OWNED.fullmatch(pretrained or "")
    return match["name"] if match else None


def slug(text: str) -> str:
    """Returns a name of letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
