"""Cats and dogs (Elson et al. 2007), by the recipe of finetune.

python -m jaxnets.main --config cats_vs_dogs --workdir runs/cats_vs_dogs

It has one split, of which a fifth becomes test and another fifth validation.
Never run here, where it could not be downloaded.
"""

from jaxnets.config_files import read_config


def get_config():
    config = read_config("finetune")
    config.data.source = "tfds:cats_vs_dogs"
    return config
