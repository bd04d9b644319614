"""ResNet-20 (He et al. 2016a, section 4.2) on scikit-learn's 8×8 handwritten digits: the first run on a new machine.

python -m jaxnets.main --config digits --workdir runs/digits
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 128
    config.epochs = 30.0
    config.eval_every_steps = 100
    config.loss.label_smoothing = 0.1
    config.optimizer.learning_rate = 0.2
    config.schedule.warmup_epochs = 3.0
    config.augment.pad_and_crop.padding = 1
    return config
