from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.data.source = "folder:data/cifar10"
    config.data.image_size = 32
    config.data.canvas_size = 32
    config.data.validation = 0.1
    config.model.name = "airbench_small"
    config.batch_size = 512
    config.epochs = 10.0
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
