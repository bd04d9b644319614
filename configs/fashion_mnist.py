"""ResNet-20 (He et al. 2016a, section 4.2) on Fashion-MNIST, all 60,000 training images, 5 epochs.

python -m jaxnets.main --config fashion_mnist --workdir runs/fashion --config.data.source=idx:DIR

DIR holds Fashion-MNIST's four IDX files, gzipped or not.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 128
    config.epochs = 5.0
    config.data.source = "idx:data/fashion-mnist"
    config.augment.flip.horizontal = 0.5
    config.model.zero_init_last_norm = True
    config.optimizer.learning_rate = 0.2
    config.schedule.warmup_epochs = 0.5
    config.schedule.name = "linear"
    return config
