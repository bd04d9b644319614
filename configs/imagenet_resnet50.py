"""ResNet-50 on ImageNet, after Goyal et al. 2017: batch 1,024, 90 epochs, BatchNorm over groups of 128 images.

python -m jaxnets.main --config imagenet_resnet50 --workdir runs/resnet50 --config.data.source=folder:DIR
python -m jaxnets.plan --config imagenet_resnet50 --topology v5e:2x4

It has never been run, neither on ImageNet nor on a TPU: there is no accuracy and no time to report, and its rates are
the paper's (its section 5.1), scaled to the batch. What is known of it is what the TPU compiler says (docs/plan.md).
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 1024
    config.epochs = 90.0
    config.dtype = "bfloat16"
    config.loss.label_smoothing = 0.1
    config.model.name = "resnet50"
    config.model.zero_init_last_norm = True
    config.batch_norm.group_size = 128
    config.data.source = "folder:imagenet"
    config.data.image_size = 224
    config.data.crop_fraction = 0.875
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.train_examples = 1_281_167
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.augment.random_resized_crop.area = (0.08, 1.0)
    config.augment.flip.horizontal = 0.5
    config.optimizer.learning_rate = 0.4
    config.optimizer.weight_decay = 1e-4
    config.schedule.warmup_epochs = 5.0
    return config
