"""ResNet-50 on ImageNet as FFCV trains it (libffcv/ffcv-imagenet, rn50_88_epochs): images of 160, then 192 pixels.

python -m jaxnets.main --config imagenet_resnet50_fast --workdir runs/fast --config.data.source=prepared:DIR

Its images grow in a line from epoch 65 to 76, rounded to multiples of 32, which is at epoch 71. It is tested at 256
pixels. Its blur before strided convolutions and its mirrored second look in testing are left out. FFCV: 78.4 % with
both, and 73.8, 75.6, 76.6, 77.2, 78.0 % after runs of 16, 24, 32, 40 and 56 epochs. Never run here.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 4096
    config.epochs = 88.0
    config.dtype = "bfloat16"
    config.loss.label_smoothing = 0.1
    config.model.name = "resnet50"
    config.batch_norm.group_size = 512
    config.data.source = "folder:imagenet"
    config.data.image_size = 192
    config.data.test_size = 256
    config.data.crop_fraction = 0.875
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.train_examples = 1_281_167
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.augment.random_resized_crop.area = (0.08, 1.0)
    config.augment.flip.horizontal = 0.5
    config.progressive.sizes = (160, 192)
    config.progressive.until_epochs = (71.0,)
    config.optimizer.learning_rate = 1.7
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay_on = "no_norms"
    config.schedule.name = "linear"
    config.schedule.warmup_epochs = 2.0
    config.schedule.warmup_start = 1e-4
    return config
