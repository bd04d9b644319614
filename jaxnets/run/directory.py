"""The run directory: where each thing lies, and the two JSON files that make it readable without its source."""

import dataclasses
import fcntl
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxnets.answer import read_thresholds
from jaxnets.config import RESUMABLE, Config, resolve
from jaxnets.data.fingerprint import changes
from jaxnets.errors import UserError
from jaxnets.models.forward import Activation
from jaxnets.preprocess import Preprocess
from jaxnets.run.storage import Place, bucket_errors, in_bucket, kind_of, make_folder, open_place, write_whole
from jaxnets.run.upgrade import FORMAT, upgrade_config
from jaxnets.schema import flatten
from jaxnets.trust.outliers import Spread
from jaxnets.trust.refusal import Refusal, read_refusal, read_temperature

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FittedOn:
    """Which weights a temperature and bounds belong to, and what they were fitted on."""

    step: int  # of the checkpoint
    weights: str  # "ema" or "raw"
    split: str
    images: int


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What model.json holds: enough to rebuild the model and to name what it says."""

    name: str
    fields: dict[str, Any]  # for create_model; JSON values
    class_names: tuple[str, ...]
    preprocess: Preprocess
    data: dict[str, int]  # Dataset.fingerprint of what it was trained on
    matmul_precision: str = "default"  # as config.matmul_precision
    activation: Activation = "softmax"  # that turns its logits into probabilities
    several_labels: bool = False  # whether the images that it was trained on may have several
    class_weights: tuple[float, ...] | None = None  # in the loss that it was trained with; None: there were none
    # Probabilities from which on each of several labels is said, of logits that no temperature divides; None: one half.
    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None  # probabilities are activation(logits / temperature); None: 1
    refusal: Refusal | None = None  # when the answer is "none of these"
    fitted_on: FittedOn | None = None  # temperature and refusal; they count for no other checkpoint
    compressed: dict[str, Any] | None = None  # how it was made smaller, and by how much; None: it was not

    def to_json(self) -> dict[str, Any]:
        saved = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for key in ("refusal", "fitted_on"):
            saved[key] = dataclasses.asdict(saved[key]) if saved[key] is not None else None
        return {"format": FORMAT, **saved, "preprocess": self.preprocess.to_json()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "ModelCard":
        return cls(
            name=saved["name"],
            fields=dict(saved["fields"]),
            class_names=tuple(saved["class_names"]),
            preprocess=Preprocess.from_json(saved["preprocess"]),
            data=dict(saved["data"]),
            matmul_precision=saved["matmul_precision"],
            activation=saved.get("activation", "softmax"),  # format 1 knew no other
            several_labels=saved.get("several_labels", False),  # nor these
            class_weights=tuple(saved["class_weights"]) if saved.get("class_weights") else None,
            thresholds=read_thresholds(saved.get("thresholds"), len(saved["class_names"])),
            temperature=read_temperature(saved.get("temperature")),
            refusal=read_refusal(saved.get("refusal")),
            fitted_on=FittedOn(**saved["fitted_on"]) if saved.get("fitted_on") else None,
            compressed=dict(saved["compressed"]) if saved.get("compressed") else None,
        )

    @property
    def is_fitted(self) -> bool:
        """Whether a temperature or bounds were fitted."""
        return self.temperature is not None or self.refusal is not None

    def as_answered(self, step: int, weights: str) -> "ModelCard":
        """Returns the card with what was fitted if it was to these weights of this checkpoint, else without it."""
        on = self.fitted_on
        if on is None or (on.step, on.weights) == (step, weights):
            return self
        return self.unfitted()

    def unfitted(self) -> "ModelCard":
        """Returns the card of other weights of the same model."""
        return dataclasses.replace(self, temperature=None, refusal=None, fitted_on=None)


@dataclass(frozen=True)
class RunDirectory:
    path: Place

    @property
    def config(self) -> Place:
        return self.path / "config.json"

    @property
    def model(self) -> Place:
        return self.path / "model.json"

    @property
    def checkpoints(self) -> Place:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Place:
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Place:
        return self.path / "tensorboard"

    @property
    def report(self) -> Place:
        return self.path / "report"

    @property
    def tracking(self) -> Place:
        return self.path / "tracking.json"

    @property
    def spread(self) -> Place:
        return self.path / "spread.safetensors"

    def is_run(self) -> bool:
        with self._readable():
            return kind_of(self.config) == kind_of(self.model) == "file"

    def check_writable(self) -> None:
        """Refuses a directory that cannot be made or written to, without making it; as far as permissions tell.

        Of a bucket it says nothing.
        """
        if not isinstance(self.path, Path):
            return
        existing = next(path for path in (self.path, *self.path.absolute().parents) if os.path.lexists(path))
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise self._not_writable(f"{existing} is read-only" if existing.is_dir() else f"{existing} is no directory")

    def create(self) -> None:
        """Makes the directory and makes sure that it can be written to.

        Raises:
            UserError: if it cannot.
        """
        try:
            with bucket_errors(self.path):
                make_folder(self.path)
                probe = self.path / f".write-test-{os.getpid()}"
                probe.write_bytes(b"\0" * 4096)
                probe.unlink()
        except OSError as error:
            raise self._not_writable(str(error.strerror)) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for this process alone; another that trains in it would damage what it writes.

        A bucket knows no locks.

        Raises:
            UserError: if another process holds it.
        """
        if in_bucket(self.path):
            yield
            return
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another process is training in {self.path}: wait for it, stop it, or give another --workdir"
                ) from error
            except OSError:  # a file system that knows no locks
                _log.warning("%s cannot be locked: do not train in it twice at once", self.path)
            yield

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            with bucket_errors(self.path):
                yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be read ({error.strerror}): check its name, your credentials and the network"
            ) from error

    def _not_writable(self, reason: str) -> UserError:
        return UserError(
            f"the work directory {self.path} cannot be written to ({reason}): "
            f"give another with --workdir, or make room and permission for this one"
        )

    def read_config(self) -> Config:
        saved, format = _without_format(read_json(self.config), self.config)
        return resolve(upgrade_config(saved, format))

    def read_model(self) -> ModelCard:
        saved, _ = _without_format(read_json(self.model), self.model)
        try:
            return ModelCard.from_json(saved)
        except UserError as error:
            raise UserError(
                f"{self.model} {error}: restore it from a copy, or put null in their place and choose them anew with "
                f"python -m jaxnets.evaluate (--thresholds, --calibrate, --precision, …)"
            ) from error
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.model} is not what jaxnets wrote ({error!r}): restore it from a copy") from error

    def write(self, config: Config, card: ModelCard) -> None:
        write_json(self.config, {"format": FORMAT, **dataclasses.asdict(config)})
        self.write_model(card)

    def write_model(self, card: ModelCard) -> None:
        write_json(self.model, card.to_json())

    def read_spread(self, card: ModelCard) -> Spread | None:
        """Returns the training images that new ones are compared with; None where distances are not looked at.

        Raises:
            UserError: if they cannot be read, or are others than the bound was chosen with.
        """
        bound = card.refusal.distance if card.refusal else None
        if bound is None:
            return None
        anew = "restore it from a copy, or choose the bounds anew with python -m jaxnets.evaluate --familiar"
        try:
            with bucket_errors(self.spread):
                content = self.spread.read_bytes()
            found, chosen_with = Spread.from_bytes(content)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.spread} cannot be read ({error}): {anew}") from error
        if chosen_with != bound:
            raise UserError(f"{self.spread} belongs to another bound than model.json has: {anew}")
        return found

    def write_spread(self, spread: Spread, bound: float) -> None:
        """Writes the training images that new ones are compared with, and the bound of the distance from them.

        Raises:
            UserError: if they cannot be written.
        """
        try:
            write_whole(self.spread, spread.to_bytes(bound))
        except OSError as error:
            raise UserError(
                f"{self.spread} cannot be written ({error.strerror}): make room or permission for it"
            ) from error

    def refuse_other_run(
        self, config: Config, card: ModelCard, asked: Config | None = None, free: frozenset[str] = frozenset()
    ) -> list[str]:
        """Refuses to go on in this directory with a config or data that would make it another run.

        Data may lie elsewhere than before, as long as it is the same data. `asked` is what the config is compared with
        in place of config.json, where that holds what became of it; the keys `free` may differ beside RESUMABLE.

        Returns:
            What has changed and may, a line each.

        Raises:
            UserError: that lists the differing keys.
        """
        before, now = flatten(asked or self.read_config()), flatten(config)
        saved = self.read_model()
        changed = {
            key: f"config.{key}: {before[key]!r} there, {now[key]!r} now"
            for key in now
            if before[key] != now[key] and not key.startswith("distributed.")
        }
        data_changes = changes(saved.data, card.data)
        same_data = saved.class_names == card.class_names and not data_changes
        allowed = RESUMABLE | free | ({"data.source"} if same_data else set())
        if before["distill.teacher_weights"] == now["distill.teacher_weights"] is not None:
            allowed |= {"distill.teacher"}  # it may lie elsewhere now
        differing = [f"  {line}" for key, line in changed.items() if key not in allowed]
        if saved.class_names != card.class_names:
            differing.append(f"  classes: {_brief(saved.class_names)} there, {_brief(card.class_names)} now")
        differing += [f"  data: {change}" for change in data_changes]
        if saved.class_weights != card.class_weights and not differing:  # a file of the same name says otherwise
            differing.append(f"  class weights: {_weights(saved)} there, {_weights(card)} now")
        if differing:
            raise UserError(
                f"{self.path} holds another run:\n"
                + "\n".join(differing)
                + "\nGive another --workdir, or the same values to go on with that run."
            )
        return list(changed.values())


def open_run(path: str | Place) -> RunDirectory:
    """Returns a finished or unfinished run.

    Raises:
        UserError: if there is none at `path`.
    """
    run = RunDirectory(open_place(path))
    if isinstance(run.path, Path) and not run.path.is_dir():
        raise UserError(f"there is no directory {path}: give the --workdir of a training run")
    if not run.is_run():
        raise UserError(
            f"{path} is not a run directory (no config.json and model.json in it): give the --workdir of a training run"
        )
    return run


def read_json(path: Place) -> dict[str, Any]:
    try:
        with bucket_errors(path):
            text = path.read_text(encoding="utf-8")
        saved = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it from a copy") from error
    if not isinstance(saved, dict):
        raise UserError(f"{path} must hold a JSON object, found {type(saved).__name__}: restore it from a copy")
    return saved


def write_json(path: Place, content: Mapping[str, Any]) -> None:
    """Writes so that a reader never sees half a file.

    Raises:
        UserError: if it cannot be written.
    """
    text = json.dumps(finite(content), indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path that is no UTF-8
        text = json.dumps(finite(content), indent=2)
    try:
        write_whole(path, text + "\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): make room or permission for it") from error


def finite(value: Any) -> Any:
    """Returns JSON content with None in place of numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_format(saved: dict[str, Any], path: Place) -> tuple[dict[str, Any], int]:
    found = saved.pop("format", None)
    if found not in range(1, FORMAT + 1):
        raise UserError(
            f"{path} has format {found}, this jaxnets reads formats 1 to {FORMAT}: use the version that wrote it"
        )
    return saved, found


def _weights(card: ModelCard) -> str:
    pairs = zip(card.class_names, card.class_weights or (), strict=False)
    shown = [f"{name} {weight:g}" for name, weight in pairs]
    return ", ".join(shown[:10]) + (", …" if len(shown) > 10 else "")


def _brief(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"{len(names)} ({shown})"
