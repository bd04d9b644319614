"""Fine-tuning from Python: `jaxnets.finetune`."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxnets.cache import use_compilation_cache
from jaxnets.classifier import Classifier
from jaxnets.config import Config, resolve
from jaxnets.config_files import read_config
from jaxnets.data.absolute import with_absolute_paths
from jaxnets.errors import UserError
from jaxnets.finetune.memo import read_memo
from jaxnets.finetune.run import finetune as run_finetune
from jaxnets.keys import all_keys, did_you_mean
from jaxnets.loading import load
from jaxnets.run.directory import RunDirectory
from jaxnets.run.storage import Place, open_place
from jaxnets.train.display import Display

_TABLES = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}  # kinds of source by a file's ending
_SHORT = {"model": "model.name", "size": "data.image_size"}


@dataclass(frozen=True)
class FinetunedRun:
    """A fine-tune that `jaxnets.finetune` made or found finished."""

    workdir: Place
    finished: bool  # False: it was stopped, and goes on when it is called again
    step: int | None  # of the best checkpoint; 0: the head alone
    validation: Mapping[str, Any]  # figures of the best checkpoint: accuracy, loss, …
    test: Mapping[str, Any]  # likewise, measured once at the end

    @property
    def accuracy(self) -> float | None:
        """On the test split; None where it is not finished, or images may have several labels."""
        return self.test.get("accuracy")

    @property
    def validation_accuracy(self) -> float | None:
        return self.validation.get("accuracy")

    @cached_property
    def classifier(self) -> Classifier:
        """The model, as `jaxnets.load(workdir)` opens it."""
        return load(self.workdir)

    def __repr__(self) -> str:
        if not self.finished:
            return f"<FinetunedRun {self.workdir}: not finished>"
        figure = "accuracy" if "accuracy" in self.test else "mean_average_precision"
        return f"<FinetunedRun {self.workdir}: test {figure.replace('_', ' ')} {self.test[figure]:.2%}>"


def finetune(
    source: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    config: str | ConfigDict | Mapping[str, Any] | Config = "finetune",
    quiet: bool = False,
    **changes: Any,
) -> FinetunedRun:
    """Fine-tunes a classifier on images of one's own, or goes on with what is there, as `python -m jaxnets.main`.

        run = jaxnets.finetune("photos/", workdir="runs/x")
        run.accuracy
        run.classifier.predict("a.jpg")

    Args:
        source: a folder of class folders, a .csv or .parquet file, or whatever config.data.source takes.
        workdir: the run directory, which may be gs://BUCKET/RUN.
        config: the name or path of a config file, what `jaxnets.get_config` returns, or a mapping of the keys that
            differ from those of "finetune".
        quiet: shows nothing.
        changes: of keys of the config, by their full name with __ or . between the parts (`data__validation=0.1`), or
            by the last part where no other key ends so (`minutes=10`, `layer_decay=0.7`); `model` is model.name.

    Raises:
        UserError: for whatever the user can correct; what was saved before stays.
    """
    resolved = _resolved(config, {"data.source": _source(source), **_by_full_name(changes)})
    if resolved.finetune.method is None:
        raise UserError("config.finetune.method is None, an ordinary training: use jaxnets.train for that")
    use_compilation_cache()
    place = open_place(workdir)
    outcome = run_finetune(with_absolute_paths(resolved), place, Display(quiet=quiet))
    memo = read_memo(RunDirectory(place))
    result = (memo.result if memo else None) or {}
    return FinetunedRun(
        workdir=place,
        finished=outcome.finished and bool(result),
        step=result.get("step"),
        validation=result.get("validation", {}),
        test=result.get("test", {}),
    )


def _source(source: str | os.PathLike[str]) -> str:
    """Returns the source that a path means; other text is one already."""
    text = os.fspath(source)
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return f"folder:{text}"
        if path.is_file() and path.suffix.lower() in _TABLES:
            return f"{_TABLES[path.suffix.lower()]}:{text}"
    except OSError:  # too long for a path
        pass
    if ":" not in text and ("/" in text or text.endswith(tuple(_TABLES)) or not isinstance(source, str)):
        raise UserError(
            f"there is no folder or table {text}: give a folder of class folders, a .csv or .parquet file, or what "
            f"config.data.source takes (tfds:NAME, hf:NAME, …)"
        )
    return text


def _by_full_name(changes: Mapping[str, Any]) -> dict[str, Any]:
    keys = all_keys()
    found = {}
    for name, value in changes.items():
        full = _SHORT.get(name, name).replace("__", ".")
        candidates = [key for key in (full, f"finetune.{full}") if key in keys]
        candidates += [key for key in keys if key.endswith(f".{full}")]
        if full not in keys and f"finetune.{full}" not in keys and len(candidates) > 1:
            raise UserError(
                f"{name} may be {', '.join(candidates)}: write the one that is meant in full, "
                f"{candidates[0].replace('.', '__')} for instance"
            )
        if not candidates:
            raise UserError(f"{name} is not a key of the config{did_you_mean(full)}")
        found[candidates[0]] = value
    return found


def _resolved(config: str | ConfigDict | Mapping[str, Any] | Config, changes: Mapping[str, Any]) -> Config:
    if isinstance(config, Config):
        values: dict[str, Any] = asdict(config)
    elif isinstance(config, ConfigDict):
        values = config.to_dict()
    else:
        values = read_config(config if isinstance(config, str) else "finetune").to_dict()
        if not isinstance(config, str):
            values = _merged(values, config)
    for name, value in changes.items():
        *above, last = name.split(".")
        group = values
        for part in above:
            group = group.setdefault(part, {})
        group[last] = value
    return resolve(values)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        inner = values.get(key)
        merged[key] = _merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return merged
