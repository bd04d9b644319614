"""EfficientNetV2-S (Tan & Le 2021) on ImageNet: four stages of growing images and regularisation, as its code has it.

python -m jaxnets.main --config imagenet_efficientnetv2_s --workdir runs/v2s --config.data.source=folder:DIR
python -m jaxnets.plan --config imagenet_efficientnetv2_s --topology v5e:2x4

Hyperparameters are those of google/automl's efficientnetv2: sizes of 171, 214, 257 and 300 pixels for a quarter of the
steps each, RandAugment in TensorFlow's dialect with magnitudes of 5, 6.67, 8.33 and 10, evaluation at 384 pixels of the
whole image squeezed to a square. The paper's table 6 differs from the code: it begins at 128 pixels, ends at magnitude
15, and its dropout rises from 0.1 (config.progressive.dropout_from), which the code has commented out. The paper:
83.9 %.

It has never been run, neither on ImageNet nor on a TPU: there is no accuracy and no time to report.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 4096
    config.epochs = 350.0
    config.dtype = "bfloat16"
    config.loss.label_smoothing = 0.1
    config.ema.decay = 0.9999
    config.model.name = "efficientnetv2_s"
    config.model.dropout = 0.2
    config.model.stochastic_depth = 0.2
    config.batch_norm.group_size = 128
    config.batch_norm.decay = 0.9
    config.data.source = "folder:imagenet"
    config.data.image_size = 300
    config.data.test_size = 384
    config.data.fit = "squeeze"
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.train_examples = 1_281_167
    config.data.mean = (128 / 255, 128 / 255, 128 / 255)
    config.data.std = (128 / 255, 128 / 255, 128 / 255)
    config.augment.random_resized_crop.area = (0.05, 1.0)
    config.augment.flip.horizontal = 0.5
    config.augment.policy.name = "tensorflow_rand_augment"
    config.augment.policy.tensorflow_rand_augment.magnitude = 10.0
    config.progressive.sizes = (171, 214, 257, 300)
    config.progressive.magnitude_from = 5.0
    config.optimizer.name = "rmsprop"
    config.optimizer.learning_rate = None
    config.optimizer.learning_rate_per_256 = 0.016
    config.optimizer.weight_decay = 1e-5
    config.optimizer.decay_form = "coupled"
    config.schedule.name = "exponential"
    config.schedule.exponential.factor = 0.97
    config.schedule.exponential.every_epochs = 2.4
    config.schedule.warmup_epochs = 5.0
    return config
