"""A multilayer perceptron with two hidden layers of 800 units on MNIST, shifted by up to two pixels.

python -m jaxnets.main --config mnist --workdir runs/mnist --config.data.source=idx:DIR

DIR holds MNIST's four IDX files, gzipped or not. A convolutional network: --config.model.name=resnet8_cifar. It follows
no paper. Never run on MNIST here, which was not at hand.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 128
    config.epochs = 20.0
    config.data.source = "idx:data/mnist"
    config.data.validation = 0.1
    config.augment.pad_and_crop.padding = 2
    config.model.name = "mlp"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-2
    config.schedule.warmup_epochs = 1.0
    return config
