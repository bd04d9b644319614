"""EfficientNet-B0 (Tan & Le 2019) on ImageNet by its published recipe: RMSProp, a rate in stairs, averaged weights.

python -m jaxnets.main --config imagenet_efficientnet_b0 --workdir runs/b0 --config.data.source=folder:DIR
python -m jaxnets.plan --config imagenet_efficientnet_b0 --topology v5e:2x4

Hyperparameters are those of tensorflow/tpu's models/official/efficientnet: a rate of 0.016 for 256 images, times 0.97
every 2.4 epochs counted from the first step, L2 of 1e-5 on all but norms, label smoothing 0.1, an average of 0.9999
with TensorFlow's warm-up. The paper: 76.7 % (77.1 % with --config.augment.policy.name=auto_augment_v0). B1 to B7:
--config.model.name=efficientnet_b1 --config.data.image_size=240, and 260, 300, 380, 456, 528, 600 pixels.

It has never been run, neither on ImageNet nor on a TPU: there is no accuracy and no time to report. What is known of it
is what the TPU compiler says (docs/plan.md).
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
    config.optimizer.name = "rmsprop"
    config.optimizer.learning_rate = None
    config.optimizer.learning_rate_per_256 = 0.016
    config.optimizer.weight_decay = 1e-5
    config.optimizer.decay_on = "no_norms"
    config.schedule.name = "exponential"
    config.schedule.exponential.factor = 0.97
    config.schedule.exponential.every_epochs = 2.4
    config.schedule.warmup_epochs = 5.0
    return config
