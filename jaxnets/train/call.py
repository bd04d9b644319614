"""Training from Python: `jaxnets.train`."""

import os
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxnets.cache import use_compilation_cache
from jaxnets.config import Config, resolve
from jaxnets.config_files import read_config
from jaxnets.data.absolute import with_absolute_paths
from jaxnets.errors import UserError
from jaxnets.run.storage import open_place
from jaxnets.train.display import Display
from jaxnets.train.loop import train as run_training
from jaxnets.train.session import Outcome


def train(
    config: str | ConfigDict | Mapping[str, Any] | Config, workdir: str | os.PathLike[str], *, quiet: bool = False
) -> Outcome:
    """Trains an image classifier into a directory, or goes on with the run that is there, as `python -m jaxnets.main`.

        config = jaxnets.get_config("digits")
        config.epochs = 5.0
        jaxnets.train(config, "runs/digits")

    Args:
        config: of `jaxnets.get_config`, or a mapping of the keys that differ from the defaults, or the name or path of
            a config file.
        workdir: the run directory, which may be gs://BUCKET/RUN.
        quiet: shows nothing.

    Returns:
        How the session ended: its last step, and whether the run is `finished`.

    Raises:
        UserError: for whatever the user can correct; what was saved before stays.
    """
    if isinstance(config, str):
        config = read_config(config)
    resolved = config if isinstance(config, Config) else resolve(config)
    if resolved.finetune.method is not None:
        raise UserError(
            f"config.finetune.method is {resolved.finetune.method}: use jaxnets.finetune(source, workdir) for a "
            f"fine-tune, or set it to None for an ordinary training"
        )
    use_compilation_cache()
    return run_training(with_absolute_paths(resolved), open_place(workdir), Display(quiet=quiet))
