"""Wide ResNet-28-10 on Fashion-MNIST with random erasing, as Zhong et al. 2017 (arXiv 1708.04896): 300 epochs.

python -m jaxnets.main --config fashion_mnist_wrn --workdir runs/fashion --config.data.source=idx:DIR

DIR holds Fashion-MNIST's four IDX files, gzipped or not. The paper's 96.35 % are of the images before August 2017, of
which some are in both splits; of today's, 95.7 % are reported (zhunzhong07/Random-Erasing#9). Never run here.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 128
    config.epochs = 300.0
    config.data.source = "idx:data/fashion-mnist"
    config.augment.pad_and_crop.padding = 4
    config.augment.flip.horizontal = 0.5
    config.augment.erasing.probability = 0.5
    config.augment.erasing.area = (0.02, 0.4)
    config.augment.erasing.aspect = (0.3, 3.3)
    config.model.name = "wide_resnet28_10"
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_on = "all"
    config.schedule.name = "step"
    config.schedule.milestone_epochs = (150.0, 225.0)
    return config
