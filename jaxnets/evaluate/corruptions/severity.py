"""How strong each corruption is at severities 1 to 5, for images of three sizes.

The numbers are those of the authors' generators (github.com/hendrycks/robustness, ImageNet-C/create_c): for images of
224 pixels make_imagenet_c.py, of 64 make_tinyimagenet_c.py, of 32 make_cifar_c.py. What they mean stands with the
function of the same name.
"""

from typing import Any, Literal

Scale = Literal["cifar", "tiny", "imagenet"]

# Of the shorter side, in pixels: the scales are for 32, 64 and 224, and the nearest is taken by ratio.
BOUNDS: tuple[tuple[int, Scale], ...] = ((45, "cifar"), (119, "tiny"))

SEVERITIES: dict[str, dict[Scale, tuple[Any, ...]]] = {
    "gaussian_noise": {
        "imagenet": (0.08, 0.12, 0.18, 0.26, 0.38),
        "tiny": (0.04, 0.08, 0.12, 0.15, 0.18),
        "cifar": (0.04, 0.06, 0.08, 0.09, 0.10),
    },
    "shot_noise": {
        "imagenet": (60, 25, 12, 5, 3),
        "tiny": (250, 100, 50, 30, 15),
        "cifar": (500, 250, 100, 75, 50),
    },
    "impulse_noise": {
        "imagenet": (0.03, 0.06, 0.09, 0.17, 0.27),
        "tiny": (0.01, 0.02, 0.05, 0.08, 0.14),
        "cifar": (0.01, 0.02, 0.03, 0.05, 0.07),
    },
    "speckle_noise": {
        "imagenet": (0.15, 0.2, 0.35, 0.45, 0.6),
        "tiny": (0.15, 0.2, 0.25, 0.3, 0.35),
        "cifar": (0.06, 0.1, 0.12, 0.16, 0.2),
    },
    "gaussian_blur": {
        "imagenet": (1, 2, 3, 4, 6),
        "tiny": (0.5, 0.75, 1, 1.25, 1.5),
        "cifar": (0.4, 0.6, 0.7, 0.8, 1),
    },
    "glass_blur": {  # sigma, reach, times
        "imagenet": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "tiny": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        "cifar": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    },
    "defocus_blur": {  # radius, sigma of the disc's edge
        "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "tiny": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    },
    "motion_blur": {  # radius, sigma
        "imagenet": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "tiny": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "cifar": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    },
    "zoom_blur": {  # the largest factor is below the first number, in steps of the second
        "imagenet": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "tiny": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "cifar": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    },
    "snow": {  # mean and deviation of the flakes, their size, threshold, radius and sigma of the wind, image's share
        "imagenet": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "tiny": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        "cifar": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    },
    "frost": {  # share of the image, share of the frost
        "imagenet": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "tiny": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        "cifar": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    },
    "fog": {  # thickness, by how much finer detail is fainter
        "imagenet": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "tiny": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "cifar": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    },
    "brightness": {
        "imagenet": (0.1, 0.2, 0.3, 0.4, 0.5),
        "tiny": (0.1, 0.2, 0.3, 0.4, 0.5),
        "cifar": (0.05, 0.1, 0.15, 0.2, 0.3),
    },
    "contrast": {
        "imagenet": (0.4, 0.3, 0.2, 0.1, 0.05),
        "tiny": (0.4, 0.3, 0.2, 0.1, 0.05),
        "cifar": (0.75, 0.5, 0.4, 0.3, 0.15),
    },
    "elastic_transform": {  # in shares of the side: how far, how smooth, and how far the corners move
        # The authors wrote 244 for 224, and their data is so.
        "imagenet": tuple(
            tuple(244 / 224 * share for share in row)
            for row in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
        "tiny": ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
        "cifar": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    },
    "pixelate": {
        "imagenet": (0.6, 0.5, 0.4, 0.3, 0.25),
        "tiny": (0.9, 0.8, 0.7, 0.6, 0.5),
        "cifar": (0.95, 0.9, 0.85, 0.75, 0.65),
    },
    "jpeg_compression": {
        "imagenet": (25, 18, 15, 10, 7),
        "tiny": (65, 58, 50, 40, 25),
        "cifar": (80, 65, 58, 50, 40),
    },
    "spatter": {  # mean and deviation of the drops, their size, threshold, strength, whether they are mud
        "imagenet": (
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
        "tiny": (
            (0.62, 0.1, 0.7, 0.7, 0.6, False),
            (0.65, 0.1, 0.8, 0.7, 0.6, False),
            (0.65, 0.3, 1, 0.69, 0.6, False),
            (0.65, 0.1, 0.7, 0.68, 0.6, True),
            (0.65, 0.1, 0.5, 0.67, 0.6, True),
        ),
        "cifar": (
            (0.62, 0.1, 0.7, 0.7, 0.5, False),
            (0.65, 0.1, 0.8, 0.7, 0.5, False),
            (0.65, 0.3, 1, 0.69, 0.5, False),
            (0.65, 0.1, 0.7, 0.69, 0.6, True),
            (0.65, 0.1, 0.5, 0.68, 0.6, True),
        ),
    },
    "saturate": {  # factor and summand of the saturation
        "imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        "tiny": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        "cifar": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    },
}
