"""The ways to explain an answer, by name: the one table of them.

A new method is a function that makes an `Explain`, a row here, and its test.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxnets.errors import UserError
from jaxnets.explain.cam import Combine, Explain, gradcam, gradcam_plus_plus, layercam, make_cam
from jaxnets.explain.gradients import make_integrated_gradients, make_smoothgrad
from jaxnets.explain.occlusion import make_occlusion
from jaxnets.explain.rollout import make_rollout
from jaxnets.explain.shapley import make_shap
from jaxnets.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to explain. What it makes is pure, and treats each image of a batch by itself."""

    name: str  # as `method=` and `--method` take it
    title: str
    paper: str
    make: Callable[[Any, Preprocess, str], Explain]  # of a network, its preprocessing and a layer
    cost: str  # of an image
    by_stage: bool = False  # whether it looks at a stage's features, whose rows and columns its map has
    signed: bool = False  # whether what speaks against the class is below 0
    fine: bool = False  # whether each pixel has a value that its neighbours know nothing of
    unit: str = ""  # of the map; none where only its shape means something
    compiled: bool = True  # whether it is a program of JAX's
    attends: bool = False  # whether it is for networks whose blocks attend, and for no others
    quick: bool = False  # whether a service can answer with it at once


def _cam(combine: Combine, **fields: Any) -> Method:
    def make(model: Any, preprocess: Preprocess, layer: str) -> Explain:
        return make_cam(combine, model, preprocess, layer)

    return Method(make=make, by_stage=True, quick=True, cost="at most 3 forward passes", **fields)


def _whole(make: Callable[..., Explain], **fields: Any) -> Method:
    """Returns a method that asks the whole network, and so takes no layer."""
    return Method(make=lambda model, preprocess, layer: make(model, preprocess), **fields)


_TABLE = (
    _cam(
        gradcam,
        name="gradcam",
        title="Grad-CAM",
        paper="Selvaraju et al. 2017, Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization",
    ),
    _cam(
        gradcam_plus_plus,
        name="gradcam++",
        title="Grad-CAM++",
        paper="Chattopadhay et al. 2018, Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep "
        "Convolutional Networks",
    ),
    _cam(
        layercam,
        name="layercam",
        title="LayerCAM",
        paper="Jiang et al. 2021, LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
    ),
    _whole(
        make_rollout,
        name="rollout",
        title="Attention rollout",
        paper="Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers",
        cost="1 forward pass",
        attends=True,
        quick=True,
    ),
    _whole(
        make_integrated_gradients,
        name="integrated_gradients",
        title="Integrated gradients",
        paper="Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks",
        cost="32 passes forward and back",
        signed=True,
        fine=True,
        unit="logits per pixel",
    ),
    _whole(
        make_smoothgrad,
        name="smoothgrad",
        title="SmoothGrad",
        paper="Smilkov et al. 2017, SmoothGrad: removing noise by adding noise",
        cost="32 passes forward and back",
        fine=True,
    ),
    _whole(
        make_occlusion,
        name="occlusion",
        title="Occlusion",
        paper="Zeiler & Fergus 2014, Visualizing and Understanding Convolutional Networks",
        cost="225 forward passes",
        signed=True,
        unit="logits",
    ),
    _whole(
        make_shap,
        name="shap",
        title="SHAP",
        paper="Lundberg & Lee 2017, A Unified Approach to Interpreting Model Predictions",
        cost="512 forward passes",
        signed=True,
        unit="logits per pixel",
        compiled=False,
    ),
)
METHODS: Mapping[str, Method] = {method.name: method for method in _TABLE}
DEFAULT = METHODS["gradcam"]
WITHOUT_STAGES = METHODS["occlusion"]  # the default for networks whose stages have no rows and columns
_ALIASES = {
    "gradcampp": "gradcam++",
    "gradcamplusplus": "gradcam++",
    "attentionrollout": "rollout",
    "ig": "integrated_gradients",
}


def find_method(name: str) -> Method:
    """Returns a method by its name, in which capitals, spaces, dashes and underscores do not count.

    Raises:
        UserError: for a name that is none.
    """
    known = {_squeezed(method): method for method in METHODS} | _ALIASES
    wanted = _squeezed(name.strip())
    if wanted in known:
        return METHODS[known[wanted]]
    close = difflib.get_close_matches(wanted, list(known), n=1, cutoff=0.6)
    hint = f" (did you mean {known[close[0]]!r}?)" if close else ""
    raise UserError(f"there is no method {name!r}{hint}; there are {', '.join(METHODS)}")


def find_methods(names: Sequence[str]) -> list[Method]:
    """Returns methods by their names, each once; "all" stands for those that are installed.

    Raises:
        UserError: as `find_method`.
    """
    found: list[Method] = []
    for name in names:
        found += installed() if _squeezed(name) == "all" else [find_method(name)]
    return list({method.name: method for method in found}.values())


def installed() -> list[Method]:
    """Returns all methods but those whose package is not there."""
    from importlib.util import find_spec

    return [method for method in _TABLE if method.compiled or find_spec(method.name) is not None]


def _squeezed(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
