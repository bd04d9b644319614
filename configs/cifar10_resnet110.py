"""ResNet-110 (He et al. 2016a, section 4.2) on CIFAR-10, by the schedule of cifar10_resnet20 and a warm-up.

python -m jaxnets.main --config cifar10_resnet110 --workdir runs/resnet110 --config.data.source=folder:DIR

The paper warms up at a rate of 0.01 until the training error is below 80 %, about 400 steps; here the rate rises from
there in as many. The paper: 93.57 %, the best of five 93.39 ± 0.16 %. Never run here.
"""

from jaxnets.config_files import read_config


def get_config():
    config = read_config("cifar10_resnet20")
    config.model.name = "resnet110_cifar"
    config.schedule.warmup_steps = 400
    config.schedule.warmup_start = 0.1
    return config
