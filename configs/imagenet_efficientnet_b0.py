"""EfficientNet-B0 (Tan & Le 2019) on ImageNet: batch 1,024, BatchNorm over groups of 128 images, averaged weights.

python -m jaxnets.main --config imagenet_efficientnet_b0 --workdir runs/b0 --config.data.source=folder:DIR
python -m jaxnets.plan --config imagenet_efficientnet_b0 --topology v5e:2x4

It has never been run, neither on ImageNet nor on a TPU: there is no accuracy and no time to report. It is SGD in place
of the paper's RMSProp, and without AutoAugment, so the paper's 77 % are not to be expected. What is known of it is
what the TPU compiler says (docs/plan.md).
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 1024
    config.epochs = 350.0
    config.dtype = "bfloat16"
    config.loss.label_smoothing = 0.1
    config.ema.decay = 0.9999
    config.model.name = "efficientnet_b0"
    config.batch_norm.group_size = 128
    config.data.source = "folder:imagenet"
    config.data.image_size = 224
    config.data.crop_fraction = 0.875
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.train_examples = 1_281_167
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.interpolation = "bicubic"
    config.augment.random_resized_crop.area = (0.08, 1.0)
    config.augment.flip.horizontal = 0.5
    config.optimizer.learning_rate = 0.4
    config.optimizer.weight_decay = 1e-5
    config.schedule.warmup_epochs = 5.0
    return config
