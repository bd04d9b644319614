"""Wide ResNet-28-10 (Zagoruyko & Komodakis 2016) on CIFAR-10: 200 epochs, a fifth of the rate from 60, 120 and 160 on.

python -m jaxnets.main --config cifar10_wrn28_10 --workdir runs/wrn --config.data.source=folder:DIR

DIR holds train/ and test/ with a folder for each class. All training images are learned from, and the last weights are
what counts. The paper: 96.00 %, the median of five. Never run here.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 128
    config.epochs = 200.0
    config.data.source = "folder:data/cifar10"
    config.data.mean = (0.4914, 0.4824, 0.4467)
    config.data.std = (0.2471, 0.2435, 0.2616)
    config.augment.pad_and_crop.padding = 4
    config.augment.pad_and_crop.mode = "reflect"
    config.augment.flip.horizontal = 0.5
    config.model.name = "wide_resnet28_10"
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_on = "all"
    config.schedule.name = "step"
    config.schedule.milestone_epochs = (60.0, 120.0, 160.0)
    config.schedule.factor = 0.2
    return config
