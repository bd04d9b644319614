"""Image classifiers in JAX: trained, checked and put to use from one run directory."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxnets.classifier import Classifier, load
    from jaxnets.errors import UserError
    from jaxnets.models.registry import create_model, list_models, preprocess_of
    from jaxnets.preprocess import Preprocess
    from jaxnets.pretrained.load import load_pretrained

# Resolved on first use, so that `import jaxnets` is quick and touches no device.
_HOMES = {
    "Classifier": "jaxnets.classifier",
    "UserError": "jaxnets.errors",
    "create_model": "jaxnets.models.registry",
    "list_models": "jaxnets.models.registry",
    "load": "jaxnets.classifier",
    "load_pretrained": "jaxnets.pretrained.load",
    "preprocess_of": "jaxnets.models.registry",
    "Preprocess": "jaxnets.preprocess",
}

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Preprocess",
    "UserError",
    "create_model",
    "list_models",
    "load",
    "load_pretrained",
    "preprocess_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxnets' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
