"""A ResNet-20 (He et al. 2016a, section 4.2) on CIFAR-10 that learns from a stronger network beside the labels.

python -m jaxnets.main --config distill --workdir runs/x --config.data.source=folder:DIR --config.distill.teacher=T

The teacher T is any model of these ten classes that jaxnets.load opens: a run directory, a file, hf:OWNER/REPO. It may
see images at another size; it sees those of the student, augmented alike. With --config.distill.teacher=None it is the
same training without a teacher. The weights of the two terms and the temperature are those of Tian et al. 2020 (CRD,
arXiv 1910.10699), whose ResNet-20 goes by this loss from 69.06 % to 70.67 % on CIFAR-100, under a ResNet-110 of 74.31
%; all else is cifar10_resnet20's. Not run to its end: there is no accuracy to report.
"""

from jaxnets.config_files import read_config


def get_config():
    config = read_config("cifar10_resnet20")
    config.distill.teacher = "runs/teacher"
    config.distill.temperature = 4.0
    config.distill.weight = 0.9
    config.distill.task_weight = 0.1
    return config
