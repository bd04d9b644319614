"""120 breeds of dogs (Khosla et al. 2011), by the recipe of finetune.

python -m jaxnets.main --config dogs --workdir runs/dogs

Its images are ImageNet's, which the weights have seen: no figure for new images.
Never run here, where it could not be downloaded.
"""

from jaxnets.config_files import read_config


def get_config():
    config = read_config("finetune")
    config.data.source = "tfds:stanford_dogs"
    return config
