"""Where a run is to be seen, by its config: what is missing for it is said before anything is computed."""

import importlib.util
import os
from functools import partial

from jaxnets.config import TrackConfig
from jaxnets.errors import UserError
from jaxnets.track.about import without_password
from jaxnets.track.mirror import Destination
from jaxnets.track.mlflow_run import MlflowRun, title_of
from jaxnets.track.wandb_run import WandbRun, mode

_EXPERIMENT = "jaxnets"


def destinations(spec: TrackConfig) -> list[Destination]:
    """Returns the places of a config.

    Raises:
        UserError: if what one of them needs is not installed.
    """
    found = []
    if spec.mlflow is not None:
        _require("mlflow", f"config.track.mlflow {without_password(spec.mlflow)}")
        experiment = spec.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        found.append(
            Destination(
                title=title_of(spec.mlflow),
                place=f"mlflow {without_password(spec.mlflow)} {experiment}",
                open=partial(MlflowRun, spec.mlflow, experiment),
            )
        )
    if spec.wandb is not None and mode() != "disabled":
        _require("wandb", f"config.track.wandb {spec.wandb}")
        found.append(
            Destination(
                title=f"W&B, project {spec.wandb}",
                place=f"wandb {spec.wandb}",
                open=partial(WandbRun, spec.wandb),
                own_files="; of what it took before, `wandb sync` finds files in wandb/ of the run directory",
            )
        )
    return found


def _require(package: str, asked: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{asked} needs {package}, which is not installed: pip install 'jaxnets[{package}]'")
