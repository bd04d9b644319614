"""What the text that names a model means, for every command and from Python: the only place that decides it.

    [NAME=][MODEL@]SOURCE

SOURCE is, in this order,

1. a path that exists: a run directory (with config.json and model.json), a file of weights, or a folder as the Hugging
   Face Hub has them (model.safetensors or pytorch_model.bin, and config.json beside it; of our own exports
   jaxnets.safetensors and model.json);
2. `hf:OWNER/REPO[@REVISION]`, a repository of the Hub, or `gs://BUCKET/FOLDER`, a run in a bucket;
3. the name of a model whose weights are known (`efficientnet_lite0`).

`MODEL@` says which network weights are of (`resnet50@weights.pth`), for those that do not say it themselves. `NAME=` is
what the model is called, in the service's addresses for instance; where it is the name of a registered model, it says
the network of weights too. A path that holds `=` or `@` is a path if it exists.
"""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jaxnets.errors import UserError, nearest, quoted
from jaxnets.models.registry import MODELS
from jaxnets.run.storage import BUCKET, Place

_log = logging.getLogger(__name__)

HUB = "hf:"
PACKAGE = "package:"  # of Python, that ships weights
PORTABLE, CARD, SPREAD = (
    "jaxnets.safetensors",
    "model.json",
    "spread.safetensors",
)  # a model of ours that is no run (`jaxnets.pretrained.portable`)
WEIGHT_FILES = (  # in a folder of the Hub's; the first that there is
    PORTABLE,  # beside its card
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
FORMS = (
    "a run directory, a file of weights (.safetensors, .pth, .npz), a folder with the Hub's files, hf:OWNER/REPO, or "
    "the name of a model whose weights are known"
)
_NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,99})=(?P<rest>.+)")
_MODEL = re.compile(r"(?P<model>\w+)@(?P<rest>.+)", re.ASCII)

Kind = Literal["run", "file", "hub", "package", "known"]


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    kind: Kind
    location: str  # a path, what follows `hf:` or `package:`, or a registered name
    name: str  # what the model is called
    given: bool = False  # whether the text gives it that name
    model: str | None = None  # the registered model that its weights are of, where the text says so

    @property
    def is_run(self) -> bool:
        return self.kind == "run"

    def __str__(self) -> str:
        """The text that means it, without its name."""
        scheme = {"hub": HUB, "package": PACKAGE}.get(self.kind, "")
        return f"{self.model}@{scheme}{self.location}" if self.model else f"{scheme}{self.location}"


def resolve(source: str | Place) -> ModelSource:
    """Returns what `source` means; nothing is read yet, and what lies elsewhere is not looked for.

    Raises:
        UserError: if it means nothing.
    """
    text = str(source)
    if (path := _existing(text)) and (found := _at(path)):
        if text in MODELS:
            _log.info("%s is a path here, and goes before the registered model of that name", text)
        return found
    if text.startswith(HUB):
        repository = text.removeprefix(HUB)
        return ModelSource(kind="hub", location=repository, name=repository.partition("@")[0].rpartition("/")[2])
    if text.startswith(PACKAGE):
        package = text.removeprefix(PACKAGE)
        return ModelSource(kind="package", location=package, name=package)
    if text.startswith(BUCKET):
        return ModelSource(kind="run", location=text, name=text.rstrip("/").rpartition("/")[2])
    if text in MODELS:
        return known(text)
    if path:
        raise _no_model_at(path)
    if match := _NAME.fullmatch(text):
        named = resolve(match["rest"])
        says = match["name"] in MODELS and named.kind in ("file", "hub")
        return replace(named, name=match["name"], given=True, model=named.model or (match["name"] if says else None))
    if (match := _MODEL.fullmatch(text)) and (match["model"] in MODELS or _existing(match["rest"])):
        return _of_model(match["model"], match["rest"])
    raise UserError(
        f"there is no model {quoted(text)}{nearest(text, MODELS)}: there is no file or folder {_looked(text)} and no "
        f"registered model of that name. Give {FORMS}"
    )


def known(name: str) -> ModelSource:
    """Returns the weights that are known for a registered model."""
    return ModelSource(kind="known", location=name, name=name)


def _of_model(model: str, rest: str) -> ModelSource:
    if model not in MODELS:
        raise UserError(
            f"there is no model {quoted(model)}{nearest(model, MODELS)}: jaxnets.list_models() has the names"
        )
    found = resolve(rest)
    if found.kind not in ("file", "hub"):
        raise UserError(f"{rest} says itself which model it is: give it without {model}@")
    return replace(found, model=model)


def _existing(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, no home, a null byte
        return None


def _at(path: Path) -> ModelSource | None:
    """Returns what lies at a path; None for a folder that holds no model."""
    if not path.is_dir():
        name = _last(path.parent) if path.name in WEIGHT_FILES else path.name.removesuffix(path.suffix)
        return ModelSource(kind="file", location=str(path), name=name)
    if (path / PORTABLE).is_file() and (path / CARD).is_file():
        return ModelSource(kind="file", location=str(path / PORTABLE), name=_last(path))
    if (path / "config.json").is_file() and (path / CARD).is_file():
        return ModelSource(kind="run", location=str(path), name=_last(path))
    for file in (*WEIGHT_FILES[1:], PORTABLE):
        if (path / file).is_file():
            return ModelSource(kind="file", location=str(path / file), name=_last(path))
    return None


def _last(folder: Path) -> str:
    """Returns the last component of a path; of "." or "runs/..", that of the directory that is meant."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def _no_model_at(folder: Path) -> UserError:
    try:
        held = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        return UserError(f"{folder} cannot be read ({error.strerror}): check its permissions")
    shown = ", ".join(map(quoted, held[:8])) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
    return UserError(
        f"{folder} is neither a run directory (no config.json and model.json in it) nor a folder with the Hub's files "
        f"(none of {', '.join(WEIGHT_FILES)}): it holds {shown or 'nothing'}. Give the --workdir of a training run, or "
        "name the file of weights itself"
    )


def _looked(text: str) -> str:
    try:
        return quoted(str(Path(text).expanduser().absolute()))
    except (OSError, RuntimeError):
        return quoted(text)
