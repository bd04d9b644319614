"""ResNet-56 (He et al. 2016a, section 4.2) on CIFAR-10, by the schedule of cifar10_resnet20.

python -m jaxnets.main --config cifar10_resnet56 --workdir runs/resnet56 --config.data.source=folder:DIR

The paper: 93.03 %. Never run here.
"""

from jaxnets.config_files import read_config


def get_config():
    config = read_config("cifar10_resnet20")
    config.model.name = "resnet56_cifar"
    return config
