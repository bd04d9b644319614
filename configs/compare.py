"""One recipe for any network, to compare ConvNets and transformers on small images: 2,000 of CIFAR-10 at 64 pixels.

python -m jaxnets.main --config compare --workdir runs/x --config.data.source=folder:DIR --config.model.name=NAME

DIR holds train/ and test/ with a folder for each class; 200 images of each are trained on, and a fiftieth of all of
train/ is held out. AdamW, cosine and crops are what ConvNeXt, DeiT and today's ResNets were published with (Liu et al.
2022, table 5), at strengths for a short training. `python benchmarks/recipes.py compare --source folder:DIR` trains the
smallest of each family that are for ImageNet, from random weights.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 64
    config.epochs = 15.0
    config.eval_every_steps = 93  # every third epoch
    config.data.source = "folder:data/cifar10"
    config.data.image_size = 64
    config.data.shots = 200
    config.data.validation = 0.02
    config.model.name = "resnet18"
    config.augment.random_resized_crop.area = (0.35, 1.0)
    config.augment.flip.horizontal = 0.5
    config.loss.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    return config
