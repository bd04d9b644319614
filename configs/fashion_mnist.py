"""airbench's small network on Fashion-MNIST, for two CPU cores and half an hour: `cifar10_fast`'s recipe, 12 epochs.

python -m jaxnets.main --config fashion_mnist --workdir runs/fashion --config.data.source=idx:DIR

DIR holds Fashion-MNIST's four IDX files, gzipped or not. The rate is the lower for the larger number of steps, so that
the sum of all rates is about cifar10_fast's. A tenth of the training images chooses the best checkpoint. Not run here
yet: there is no accuracy to report.
"""

from jaxnets.config_files import read_config


def get_config():
    config = read_config("cifar10_fast")
    config.epochs = 12.0
    config.data.source = "idx:data/fashion-mnist"
    config.data.image_size = 28
    config.data.canvas_size = 28
    config.optimizer.learning_rate = 0.04
    config.optimizer.muon.fallback_rate = 30.0
    return config
