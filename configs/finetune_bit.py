"""BiT-HyperRule (Kolesnikov et al. 2020, arXiv 1912.11370, section 3.3; `big_transfer/bit_hyperrule.py`): all layers.

python -m jaxnets.main --config finetune_bit --config.data.source=folder:DIR --workdir runs/bit

This is the rule for fewer than 20,000 training images: 500 steps of 512, SGD at 0.003 with a linear warm-up of 100,
divided by 10 at 200, 300 and 400, neither weight decay nor dropout. Below 500,000 images the rule is
--config.steps=10000 --config.schedule.milestones=0.3,0.6,0.9 --config.mix.mixup=0.1 with a warm-up of 500 steps; above
that, 20000 steps.

What the config cannot say as the rule does: the head starts at its small draw and not at 0; a random crop of 64 % of
the area or more is in the place of one of 128 out of 160 pixels (480 out of 512); warm-up is in epochs, 100 · 512 /
images, here for 5,000 images: set config.schedule.warmup_epochs for yours. The rule is for networks with GroupNorm and
standardised weights, which are not here yet: with BatchNorm expect less of tiny sets. On a CPU, and for few images,
--config finetune is quicker and as good.
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
