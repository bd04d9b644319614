"""BiT-HyperRule (Kolesnikov et al. 2020, arXiv 1912.11370, section 3.3; `big_transfer/bit_hyperrule.py`): all layers.

python -m jaxnets.main --config finetune_bit --config.data.source=folder:DIR --workdir runs/bit

This is the rule for fewer than 20,000 training images: 500 steps of 512, SGD at 0.003 with a linear warm-up of 100 steps,
divided by 10 at 200, 300 and 400, neither weight decay nor dropout, a head that starts at 0 but for its small draw. For
more images: --config.steps=10000 with --config.mix.mixup=0.1 (below 500,000), else 20000; milestones stay the same shares.

What differs from the rule, since the config says it otherwise: a random crop of at least (128 / 160)² of the area in
place of a fixed one of 128 from 160 pixels (and of 480 from 512); evaluation squeezes the whole image, as there; warm-up
is given in epochs (`warmup_epochs` = 100 · 512 / images), so set it for your number of images, here 5,000. The rule is
for networks with GroupNorm: with BatchNorm, as here, expect less of tiny sets. On a CPU, and for few images,
`--config finetune` is quicker and as good.
"""

from jaxnets.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 512
    config.steps = 500
    config.log_every_steps = 10
    config.eval_every_steps = 100
    config.model.name = "efficientnet_lite0"
    config.model.pretrained = "efficientnet_lite0"
    config.model.dropout = 0.0
    config.model.stochastic_depth = 0.0
    config.data.validation = 0.1
    config.data.fit = "squeeze"
    config.data.crop_fraction = 1.0
    config.augment.random_resized_crop.area = (0.64, 1.0)
    config.augment.random_resized_crop.aspect = (1.0, 1.0)
    config.augment.flip.horizontal = 0.5
    config.optimizer.learning_rate = 0.003
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "step"
    config.schedule.milestones = (0.4, 0.6, 0.8)
    config.schedule.factor = 0.1
    config.schedule.warmup_epochs = 10.24
    return config
