"""102 kinds of flowers (Nilsback & Zisserman 2008), ten training images of each, by the recipe of finetune.

python -m jaxnets.main --config flowers --workdir runs/flowers

Its validation split chooses, its test split has 6,149 images.
Never run here, where it could not be downloaded.
"""

from jaxnets.config_files import read_config


def get_config():
    config = read_config("finetune")
    config.data.source = "tfds:oxford_flowers102"
    return config
