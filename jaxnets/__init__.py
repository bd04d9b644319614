"""Image classifiers in JAX: trained, checked and put to use from one run directory."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxnets import compress, evaluate, finetune, search, select, soup, sweep, train
    from jaxnets.classifier import Classifier
    from jaxnets.config_files import read_config as get_config
    from jaxnets.errors import UserError
    from jaxnets.loading import load
    from jaxnets.models.registry import create_model, list_models, preprocess_of
    from jaxnets.preprocess import Preprocess
    from jaxnets.pretrained.load import load_pretrained
    from jaxnets.sweep.range_test import find_rate

# ONNX Runtime from 1.32 on tells its makers how it is used, unless this stands there before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Resolved on first use, so that `import jaxnets` is quick and touches no device.
_HOMES = {
    "Classifier": "jaxnets.classifier",
    "UserError": "jaxnets.errors",
    "get_config": "jaxnets.config_files:read_config",
    "create_model": "jaxnets.models.registry",
    "find_rate": "jaxnets.sweep.range_test",
    "list_models": "jaxnets.models.registry",
    "load": "jaxnets.loading",
    "load_pretrained": "jaxnets.pretrained.load",
    "preprocess_of": "jaxnets.models.registry",
    "Preprocess": "jaxnets.preprocess",
}

__version__ = "0.1.0"
_CALLABLE = (
    "compress",
    "evaluate",
    "finetune",
    "search",
    "select",
    "soup",
    "sweep",
    "train",
)  # also functions (jaxnets.callable)

__all__ = [
    "Classifier",
    "Preprocess",
    "UserError",
    "compress",
    "create_model",
    "evaluate",
    "find_rate",
    "finetune",
    "get_config",
    "list_models",
    "load",
    "load_pretrained",
    "preprocess_of",
    "search",
    "select",
    "soup",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return importlib.import_module(f"jaxnets.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxnets' has no attribute {name!r}")
    module, _, own_name = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), own_name or name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
