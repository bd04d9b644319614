"""EfficientNet-Lite0 with ImageNet's weights on your own images, of which each may have several labels, or none.

python -m jaxnets.main --config multilabel --workdir runs/tags --config.data.source=csv:tags.csv

The table has a column of files and one of labels with | between them ("cat|dog"); for a column of 0 and 1 a label, add
--config.data.table.labels=cat,dog,… A fifth of the training images chooses the checkpoint and each label's threshold.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 32
    config.epochs = 10.0
    config.model.name = "efficientnet_lite0"
    config.model.pretrained = "efficientnet_lite0"
    config.data.source = "csv:tags.csv"
    config.data.validation = 0.2
    # A label must not be cut out of the image that has it: the model sees all of it.
    config.data.fit = "squeeze"
    config.data.crop_fraction = 1.0
    config.data.table.separator = "|"
    config.loss.name = "sigmoid_cross_entropy"
    # What is pretrained is easily ruined: low rates, the lower the nearer to the image, after a warm-up.
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.layer_decay = 0.85
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup_epochs = 1.0
    config.augment.random_resized_crop.area = (0.5, 1.0)
    config.augment.flip.horizontal = 0.5
    return config
