"""ResNet-20 (He et al. 2016a, section 4.2) on CIFAR-10: 64,000 steps of 128 images, a tenth of the rate from 32,000 on.

python -m jaxnets.main --config cifar10_resnet20 --workdir runs/resnet20 --config.data.source=folder:DIR

DIR holds train/ and test/ with a folder for each class. As in the paper a tenth of the training images is held out; of
its per-pixel mean each channel's is taken. The paper: 91.25 %. Not run to its end here.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 128
    config.steps = 64_000
    config.eval_every_steps = 2_000
    config.data.source = "folder:data/cifar10"
    config.data.validation = 0.1
    config.augment.pad_and_crop.padding = 4
    config.augment.flip.horizontal = 0.5
    config.model.name = "resnet20_cifar"
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "step"
    config.schedule.milestones = (0.5, 0.75)
    return config
