"""Draws what a policy makes of images, beside what Pillow and the library that it is named after make of them.

    python benchmarks/policy_sheet.py IMAGE… --policy timm_rand_augment --out sheet.png [--size 128] [--draws 10]

For each image there are three rows: ours; the same draws carried out by Pillow, one op after the other; and the
library's own draws, where timm or torchvision is installed. The greatest and the mean difference of the first two rows
are printed, in levels of 256. Pillow blurs an image twice where two geometric ops are drawn, and we once.
"""

import argparse
import random

import jax
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from jaxnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from jaxnets.recipe.augment.op import keys_of
from jaxnets.recipe.augment.policy.layer import Kind
from jaxnets.recipe.augment.policy.table import PolicyConfig, find_policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--policy", default="timm_rand_augment")
    parser.add_argument("--out", default="sheet.png")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size, draws = options.size, options.draws
    seen = Preprocess(height=size, width=size, channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    op = find_policy(PolicyConfig(name=options.policy), seen)
    assert op is not None
    images = [seen.fit(np.asarray(Image.open(path).convert("RGB"))) for path in options.images]
    batch = np.repeat(np.stack(images), draws, 0)
    index = np.arange(len(batch), dtype=np.int32)
    keys = keys_of(0, seed=options.seed, epoch=index * 0, index=index)
    layers = op.policy.draw(keys, size, size)
    ours = np.asarray(jax.jit(op)(keys, batch))
    drawn = [[tuple(np.asarray(x)[i] for x in each if x is not None) for each in layers] for i in index]
    theirs = np.stack([one_by_one(op, *each) for each in zip(batch, drawn, strict=True)])
    for i in index:
        names = [f"{Kind(int(each.kind[i])).name.lower()} {float(each.amount[i]):.3g}" for each in layers]
        difference = np.abs(ours[i].astype(int) - theirs[i])
        print(
            f"{i // draws}/{i % draws}  {' + '.join(names):45} max {difference.max():3d}  mean {difference.mean():.3f}"
        )
    rows = []
    for number, image in enumerate(images):
        part = slice(number * draws, (number + 1) * draws)
        own = drawn_by_library(options.policy, image, op.fill, draws, options.seed)
        rows += [np.concatenate(list(row), 1) for row in (ours[part], theirs[part], own) if row is not None]
    Image.fromarray(np.concatenate(rows)).save(options.out)
    print(f"{options.out}: {len(rows)} rows of {draws}")


def one_by_one(op, image: np.ndarray, layers: list[tuple]) -> np.ndarray:
    """Applies what was drawn for one image with Pillow."""
    made, dialect = Image.fromarray(image), op.policy.dialect
    moved = {"resample": Image.Resampling[dialect.filter.upper()], "fillcolor": op.fill}
    back = 0.5 - dialect.corner  # pixels that a shear is moved by, so that it keeps the dialect's point
    for kind, value, *centre in layers:
        amount = float(value)
        if kind == Kind.ROTATE:
            made = made.rotate(amount, **moved)
        elif kind == Kind.CUTOUT:
            row, column = np.floor(centre[0] * image.shape[:2]).astype(int)
            hole, half = np.array(made), int(amount)
            hole[max(0, row - half) : row + half, max(0, column - half) : column + half] = op.fill
            made = Image.fromarray(hole)
        elif kind in (Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X, Kind.TRANSLATE_Y):
            across, down = (amount if kind == shear else 0.0 for shear in (Kind.SHEAR_X, Kind.SHEAR_Y))
            right, below = (amount if kind == move else 0.0 for move in (Kind.TRANSLATE_X, Kind.TRANSLATE_Y))
            matrix = (1, across, right - back * across, down, 1, below - back * down)
            made = made.transform(made.size, Image.Transform.AFFINE, matrix, **moved)
        elif kind == Kind.CONTRAST and dialect.contrast_from_area:
            level = min(made.width * made.height // 256, 255)
            made = Image.blend(Image.new("RGB", made.size, (level,) * 3), made, amount)
        elif kind in (Kind.BRIGHTNESS, Kind.CONTRAST, Kind.COLOR, Kind.SHARPNESS):
            made = getattr(ImageEnhance, Kind(kind).name.capitalize())(made).enhance(amount)
        elif kind == Kind.POSTERIZE:
            made = ImageOps.posterize(made, min(int(amount), 8)) if amount >= 1 else Image.new("RGB", made.size)
        elif kind == Kind.SOLARIZE:
            made = ImageOps.solarize(made, amount)
        elif kind == Kind.SOLARIZE_ADD:
            made = made.point([min(255, x + int(amount)) if x < 128 else x for x in range(256)] * 3)
        elif kind != Kind.IDENTITY:
            made = getattr(ImageOps, Kind(kind).name.lower())(made)
    return np.asarray(made)


def drawn_by_library(name: str, image: np.ndarray, fill: tuple, draws: int, seed: int) -> np.ndarray | None:
    """Returns what timm or torchvision draws, with its own random numbers; None where it is not installed."""
    random.seed(seed)
    np.random.seed(seed)
    timm = {"timm_rand_augment": "rand-m9-mstd0.5-inc1", "auto_augment_v0": "v0"}
    vision = {
        "torchvision_rand_augment": ("RandAugment", {}),
        "trivial_augment_wide": ("TrivialAugmentWide", {}),
        "auto_augment_imagenet": ("AutoAugment", {"policy": "imagenet"}),
        "auto_augment_cifar10": ("AutoAugment", {"policy": "cifar10"}),
    }
    try:
        if name in timm:
            from timm.data import auto_augment

            make = auto_augment.rand_augment_transform if "rand" in name else auto_augment.auto_augment_transform
            transform = make(timm[name], {"img_mean": fill, "translate_pct": 0.45})
        elif name in vision:
            import torch
            from torchvision import transforms

            torch.manual_seed(seed)
            kind, fields = vision[name]
            if "policy" in fields:
                fields = {"policy": transforms.AutoAugmentPolicy(fields["policy"])}
            transform = getattr(transforms, kind)(interpolation=transforms.InterpolationMode.BILINEAR, **fields)
        else:
            return None
    except ImportError:
        return None
    return np.stack([np.asarray(transform(Image.fromarray(image))) for _ in range(draws)])


if __name__ == "__main__":
    main()
