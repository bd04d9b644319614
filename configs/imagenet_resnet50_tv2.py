"""ResNet-50 on ImageNet as torchvision's second weights (IMAGENET1K_V2; pytorch/vision#3995): SGD for 600 epochs.

python -m jaxnets.main --config imagenet_resnet50_tv2 --workdir runs/tv2 --config.data.source=folder:DIR

Trained at 176 pixels, tested at 224 of 232. Its sampler shows each image four times; its average is of every 32nd step.
torchvision: 80.86 %. Never run here.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 1024
    config.epochs = 600.0
    config.dtype = "bfloat16"
    config.loss.label_smoothing = 0.1
    config.ema.decay = 0.99998
    config.ema.warmup = "torchvision"
    config.ema.every_steps = 32
    config.model.name = "resnet50"
    config.model.zero_init_last_norm = False
    config.batch_norm.group_size = 128
    config.data.source = "folder:imagenet"
    config.data.image_size = 176
    config.data.test_size = 224
    config.data.crop_fraction = 224 / 232
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.train_examples = 1_281_167
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.repeats = 4
    config.augment.random_resized_crop.area = (0.08, 1.0)
    config.augment.flip.horizontal = 0.5
    config.augment.policy.name = "trivial_augment_wide"
    config.augment.erasing.probability = 0.1
    config.augment.erasing.area = (0.02, 0.33)
    config.augment.erasing.aspect = (0.3, 3.3)
    config.mix.mixup = 0.2
    config.mix.cutmix = 1.0
    config.optimizer.learning_rate = 0.5
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 2e-5
    config.optimizer.decay_on = "no_norms"
    config.schedule.warmup_epochs = 5.0
    config.schedule.warmup_start = 0.01
    config.schedule.per_epoch = True
    return config
