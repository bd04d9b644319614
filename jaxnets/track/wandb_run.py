"""A run of Weights & Biases', online or, with WANDB_MODE=offline, in files that `wandb sync` uploads."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxnets.track.tracker import About, Ended, Kept, Row, numbers_in

_START_SECONDS = 30.0


def mode() -> str:
    """Returns online, offline or disabled, as W&B's own variable says."""
    return {"dryrun": "offline"}.get(found := os.environ.get("WANDB_MODE", "online"), found)


class WandbRun:
    """Begins a run in `[ENTITY/]PROJECT`, or goes on with the one that is `kept`.

    W&B wants steps to rise, and a run's row of training, of evaluation and of test may be of one step. So its own step
    counts what it got, over all sessions, and ours is a number beside it, that its charts are drawn over.

    Raises:
        RuntimeError: if there is no key for it.
        Exception: of W&B's, if it cannot be reached.
    """

    def __init__(self, project: str, about: About, kept: Kept) -> None:
        import wandb

        offline = mode() == "offline"
        if not offline and not _has_key(wandb):  # it would ask for one at the terminal
            raise RuntimeError(
                "there is no key of W&B here: give one with `wandb login` or WANDB_API_KEY, or set WANDB_MODE=offline"
            )
        entity, _, name = project.rpartition("/")
        self.id = kept.id or about.key
        self._count = kept.sent
        self._wandb = wandb
        self._run = wandb.init(
            entity=entity or None,
            project=name,
            id=self.id,
            name=about.name,
            dir=about.folder,
            config={**_nested(about.params), "about": dict(about.tags)},
            resume=None if offline else "allow",
            reinit="create_new",  # a run of the caller's own is left alone
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                save_code=False,
                x_disable_stats=True,
                init_timeout=_START_SECONDS,
            ),
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self.address = f"offline, run {self.id} in {self._run.dir}" if offline else str(self._run.url)

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            written = {"_timestamp": row["time"]} if "time" in row else {}
            self._log({"step": row["step"], **written, **numbers_in(row)})

    def image(self, name: str, png: bytes, step: int) -> None:
        from PIL import Image

        self._log({"step": step, name: self._wandb.Image(Image.open(io.BytesIO(png)))})

    def files(self, folder: str, files: Mapping[str, bytes]) -> None:
        artifact = self._wandb.Artifact(f"{folder}-{self.id}", type=folder)
        with TemporaryDirectory(prefix="jaxnets-") as temporary:
            for name, content in files.items():
                (Path(temporary) / name).write_bytes(content)
                artifact.add_file(str(Path(temporary) / name), name)
            self._run.log_artifact(artifact).wait() if mode() == "online" else self._run.log_artifact(artifact)

    def close(self, ended: Ended | None, why: str = "") -> None:
        if ended is not None:
            self._run.summary["ended"] = f"{ended}: {why}" if why else ended
        self._run.finish(exit_code=1 if ended == "failed" else 0)

    def _log(self, values: Mapping[str, Any]) -> None:
        self._run.log(dict(values), step=self._count, commit=True)
        self._count += 1


def _has_key(wandb: Any) -> bool:
    try:
        return bool(wandb.login(prompt=False))
    except TypeError:  # versions before 0.31
        return bool(wandb.api.api_key)


def _nested(params: Mapping[str, str]) -> dict[str, Any]:
    """Returns a config with a mapping for each group of keys, as W&B shows it."""
    nested: dict[str, Any] = {}
    for key, value in params.items():
        *groups, name = key.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value
    return nested
