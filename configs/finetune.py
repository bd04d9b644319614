"""Your own images in one command: EfficientNet-Lite0 with ImageNet's weights, fine-tuned on a folder, a CSV, anything.

python -m jaxnets.main --config finetune --config.data.source=folder:DIR --workdir runs/mine

On a CPU a head is solved on features that are computed once: 1,000 images take about a minute on two cores. With
--config.finetune.minutes=30 the last stages are trained in what is left of that time. On an accelerator all layers are.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.finetune.method = "auto"
    config.model.name = "efficientnet_lite0"
    # What follows is of the training after the head: low rates, so that it does not ruin what the weights know.
    config.batch_size = 32
    config.epochs = 10.0
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-4
    config.optimizer.weight_decay = 1e-3
    config.optimizer.clip_norm = 1.0
    config.optimizer.layer_decay = 0.8
    config.schedule.warmup_epochs = 1.0
    config.loss.label_smoothing = 0.1
    config.augment.random_resized_crop.area = (0.25, 1.0)
    config.augment.flip.horizontal = 0.5
    return config
