"""airbench's network, a quarter of its work, on CIFAR-10 for two CPU cores and a quarter of an hour.

python -m jaxnets.main --config cifar10_fast --workdir runs/cifar10_fast --config.data.source=folder:DIR

DIR holds train/ and test/ with a folder for each class. What Jordan 2024 (arXiv 2404.00498) trains in seconds on a GPU:
filters that whiten the images' patches, convolutions that begin as the identity, alternating flips, translation by
reflected pixels, label smoothing of 0.2, and SGD whose rate rises for a fifth of the run and falls to 0 in a line; rate
and weight decay are legacy/airbench94.py's for a mean in place of a sum over a batch of 1,024, and half of it. His
biases' rate (64 times as high), lookahead and test-time augmentation are left out.

By processor time, two cores train on 610 to 640 images a second, so that ten epochs of 45,000 take about 13 minutes of
two that are idle. The whole run was not measured yet; 2 epochs in place of 10 (one seed, a warm-up of 0.8) ended at
76.8 % of the validation split and 77.4 % of the test split. The paper: 94.0 % in 10 epochs of airbench94 on 50,000
images, with test-time augmentation.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 512
    config.epochs = 10.0
    config.data.source = "folder:data/cifar10"
    config.data.image_size = 32
    config.data.canvas_size = 32
    config.data.validation = 0.1
    config.model.name = "airbench_small"
    config.loss.label_smoothing = 0.2
    config.augment.pad_and_crop.padding = 2
    config.augment.pad_and_crop.mode = "reflect"
    config.augment.flip.horizontal = 0.5
    config.augment.flip.alternate = True
    config.optimizer.learning_rate = 0.75
    config.optimizer.momentum = 0.85
    config.optimizer.weight_decay = 1.3e-3
    config.schedule.name = "linear"
    config.schedule.warmup_epochs = 2.0
    return config
