"""ResNet-50 on ImageNet by recipe A1 of "ResNet strikes back" (Wightman et al. 2021, table 2): A2 for 600 epochs.

python -m jaxnets.main --config imagenet_resnet50_a1 --workdir runs/a1 --config.data.source=folder:DIR

It decays half as much as A2 and mixes more; its label smoothing of 0.1 has no effect where targets are made 0 or 1, so
there is no such threshold here. The paper: 80.4 % (timm's weights 80.38 %, 81.24 % at 288 pixels). Never run here.
"""

from jaxnets.config_files import read_config


def get_config():
    config = read_config("imagenet_resnet50_a2")
    config.epochs = 600.0
    config.mix.mixup = 0.2
    config.loss.label_smoothing = 0.1
    config.loss.sigmoid_cross_entropy.threshold = None
    config.optimizer.weight_decay = 0.01
    return config
