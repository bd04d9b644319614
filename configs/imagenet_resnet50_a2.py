"""ResNet-50 on ImageNet by recipe A2 of "ResNet strikes back" (Wightman et al. 2021, table 2): LAMB, BCE, 300 epochs.

python -m jaxnets.main --config imagenet_resnet50_a2 --workdir runs/a2 --config.data.source=folder:DIR

Its batches have 2,048 images, of which each image is there three times; here 2,040, which three divides. The paper:
79.8 % (timm's weights 79.83 %, 80.77 % at 288 pixels). Never run here.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 2040
    config.epochs = 300.0
    config.dtype = "bfloat16"
    config.model.name = "resnet50"
    config.model.zero_init_last_norm = True
    config.model.stochastic_depth = 0.05
    config.batch_norm.group_size = 255
    config.data.source = "folder:imagenet"
    config.data.image_size = 224
    config.data.crop_fraction = 0.95
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.train_examples = 1_281_167
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.interpolation = "bicubic"
    config.data.repeats = 3
    config.augment.random_resized_crop.area = (0.08, 1.0)
    config.augment.flip.horizontal = 0.5
    config.augment.policy.name = "timm_rand_augment"
    config.augment.policy.timm_rand_augment.magnitude = 7.0
    config.mix.mixup = 0.1
    config.mix.cutmix = 1.0
    config.loss.name = "sigmoid_cross_entropy"
    config.loss.sigmoid_cross_entropy.over_classes = "mean"
    config.loss.sigmoid_cross_entropy.threshold = 0.2
    config.optimizer.name = "lamb"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.weight_decay = 0.02
    config.schedule.warmup_epochs = 5.0
    config.schedule.warmup_start = 0.02  # 1e-4
    config.schedule.final = 2e-4  # 1e-6
    config.schedule.counts_from = "start"
    config.schedule.per_epoch = True
    return config
