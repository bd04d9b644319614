"""ResNet-50 on ImageNet by recipe A3 of "ResNet strikes back" (Wightman et al. 2021, table 2): 100 epochs, 160 pixels.

python -m jaxnets.main --config imagenet_resnet50_a3 --workdir runs/a3 --config.data.source=folder:DIR

It is tested at 224 pixels. The paper: 78.1 % (timm's weights 78.05 %). Never run here.
"""

from jaxnets.config_files import read_config


def get_config():
    config = read_config("imagenet_resnet50_a2")
    config.batch_size = 2048
    config.epochs = 100.0
    config.model.stochastic_depth = 0.0
    config.batch_norm.group_size = 256
    config.data.image_size = 160
    config.data.test_size = 224
    config.data.repeats = 1
    config.augment.policy.timm_rand_augment.magnitude = 6.0
    config.optimizer.learning_rate = 8e-3
    config.schedule.warmup_start = 0.0125  # 1e-4
    config.schedule.final = 1.25e-4  # 1e-6
    return config
