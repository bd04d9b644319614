"""A run of MLflow's, whatever keeps it: a server, a database, Databricks."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxnets.track.about import without_password
from jaxnets.track.tracker import About, Ended, Kept, Row, numbers_in

_KEY = "jaxnets.key"  # tag by which a run is found again whose number never reached us
_METRICS, _PARAMS, _TAGS = 1000, 100, 100  # that MLflow takes at once
_VALUE = 6000  # characters of a param, at most
_STATUS: dict[Ended, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
# By default MLflow waits for many minutes for a host that does not answer, and tells its makers what it is used for.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def client_of(uri: str) -> Any:
    """Returns a client of the service at a URI."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient  # 2 s

    # They tell of each table that is made, each new attempt, and each accelerator that is not here.
    for library in ("alembic", "urllib3.connectionpool", "mlflow.onnx"):
        logging.getLogger(library).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


class MlflowRun:
    """Begins a run in an experiment, or goes on with the one that is `kept`; of one that was deleted it begins another.

    Raises:
        RuntimeError: if the experiment was deleted there.
        Exception: of MLflow's, if it cannot be reached.
    """

    def __init__(self, uri: str, experiment: str, about: About, kept: Kept) -> None:
        self._client = client_of(uri)
        number = self._experiment(experiment, uri)
        run = (kept.id and self._there(kept.id)) or self._begun(number, about.key)
        self._was = run.info.status if run is not None else "FINISHED"
        if run is None:
            tags = {_KEY: about.key, "mlflow.runName": about.name, "mlflow.user": os.environ.get("USER", "")}
            if "git.commit" in about.tags:
                tags["mlflow.source.git.commit"] = about.tags["git.commit"]
            run = self._client.create_run(number, tags=tags, run_name=about.name)
        elif run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")
        self.id: str = run.info.run_id
        page = f"#/experiments/{run.info.experiment_id}/runs/{self.id}"
        self.address = (
            f"{uri.rstrip('/')}/{page}" if uri.startswith("http") else f"run {self.id} of experiment {experiment!r}"
        )
        self._describe(about, run.data.params, run.data.tags)

    def rows(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        now = time.time()
        metrics = [
            Metric(key, float(value), round(1000 * row.get("time", now)), row["step"])
            for row in rows
            for key, value in numbers_in(row).items()
        ]
        for some in _parts(metrics, _METRICS):
            self._client.log_batch(self.id, metrics=some)

    def image(self, name: str, png: bytes, step: int) -> None:
        self.files("", {f"{name}.png": png})

    def files(self, folder: str, files: Mapping[str, bytes]) -> None:
        with TemporaryDirectory(prefix="jaxnets-") as temporary:
            for name, content in files.items():
                (Path(temporary) / name).write_bytes(content)
            self._client.log_artifacts(self.id, temporary, folder or None)

    def close(self, ended: Ended | None, why: str = "") -> None:
        if ended is not None:
            self._client.set_tag(self.id, "ended", f"{ended}: {why}"[:_VALUE] if why else ended)
            status = _STATUS[ended]
        else:  # of a session that was killed, nothing else is known
            status = "KILLED" if self._was == "RUNNING" else self._was
        self._client.set_terminated(self.id, status)

    def _experiment(self, name: str, uri: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            from mlflow.exceptions import MlflowException

            try:
                return self._client.create_experiment(name, artifact_location=_beside(uri))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise  # else another run was quicker to make it
        if found.lifecycle_stage == "deleted":
            raise RuntimeError(
                f"the experiment {name!r} was deleted there: restore it (mlflow experiments restore --experiment-id "
                f"{found.experiment_id}), or give another config.track.experiment"
            )
        return found.experiment_id

    def _there(self, run: str) -> Any | None:
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_run(run)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return found if found.info.lifecycle_stage == "active" else None

    def _begun(self, experiment: str, key: str) -> Any | None:
        """Returns a run that an earlier session began and was killed before it could note it."""
        found = self._client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'", max_results=1)
        return found[0] if found else None

    def _describe(self, about: About, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Sets params that are new. Those that are there cannot change, and what a session changed becomes a tag."""
        from mlflow.entities import Param, RunTag

        wanted = {key: value[:_VALUE] for key, value in about.params.items()}
        for some in _parts([Param(key, value) for key, value in wanted.items() if key not in params], _PARAMS):
            self._client.log_batch(self.id, params=some)
        changed = {f"config.{key}": value for key, value in wanted.items() if params.get(key, value) != value}
        later = {f"config.{key}": value for key, value in wanted.items() if f"config.{key}" in tags}
        for some in _parts([RunTag(*item) for item in {**about.tags, **later, **changed}.items()], _TAGS):
            self._client.log_batch(self.id, tags=some)


def _beside(uri: str) -> str | None:
    """Returns the folder for files that a database file gets beside it; by default it is where a command was given."""
    scheme, _, path = uri.partition(":///")
    return f"{Path(path).absolute().parent.as_uri()}/mlartifacts" if scheme.startswith("sqlite") else None


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def title_of(uri: str) -> str:
    return f"MLflow at {without_password(uri)}"
