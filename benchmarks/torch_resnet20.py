"""Trains a ResNet-20 in PyTorch on CIFAR-10 by the recipe of configs/cifar10_resnet20.py, in any number of epochs.

python benchmarks/torch_resnet20.py DIR WORKDIR [--epochs 5] [--seed 0]

DIR holds train/ and test/ with a folder for each class, 32×32. Rows are written to WORKDIR/metrics.jsonl under the
names that jaxnets gives them. Images lie in memory as uint8 and are cropped and flipped many at once, so that PyTorch's
time is that of its network, not of a loader. It needs torch, numpy and Pillow.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

BATCH, RATE, DECAY, PADDING = 128, 0.1, 1e-4, 4
MILESTONES = (0.5, 0.75)  # of the steps, a tenth of the rate from there on
HELD_OUT = 0.1


class Block(nn.Module):
    def __init__(self, channels, features, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)
        self.stride, self.added = stride, features - channels

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.stride == 2:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))
        return functional.relu(x + y)


def resnet20(channels: int) -> nn.Module:
    """Returns ResNet-20 (He et al. 2016a, section 4.2; shortcuts of option A), channels last, begun as jaxnets does."""
    blocks, before = [], 16
    for stage, features in enumerate((16, 32, 64)):
        for block in range(3):
            blocks.append(Block(before, features, 2 if stage and not block else 1))
            before = features
    stem = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.normal_(model[-1].weight, std=0.01)
    nn.init.zeros_(model[-1].bias)
    return model.to(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    options.workdir.mkdir(parents=True, exist_ok=True)
    images, labels = read(options.images / "train")
    order = torch.randperm(len(images))
    held_out = round(HELD_OUT * len(images))
    validation, train = order[:held_out], order[held_out:]
    mean = images[train].float().mean((0, 2, 3), keepdim=True) / 255
    std = images[train].float().div_(255).std((0, 2, 3), keepdim=True)

    def normalised(some):
        return ((some.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    model = resnet20(3)
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}], RATE, momentum=0.9
    )
    steps = math.ceil(options.epochs * len(train) / BATCH)
    stops = [round(share * steps) for share in MILESTONES]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, stops, 0.1)
    with (options.workdir / "metrics.jsonl").open("w") as file:

        def row(**values):
            print(json.dumps({"step": step, "time": time.time(), **values}), file=file, flush=True)

        batches = batches_of(train)
        per_epoch = math.ceil(len(train) / BATCH)
        began, since = time.time(), 0
        for step in range(1, steps + 1):
            some = next(batches)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(normalised(augmented(images[some]))), labels[some])
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % per_epoch == 0 or step == steps:
                speed = (step - since) * BATCH / (time.time() - began)
                row(**{"train/loss": loss.item(), "train/images_per_second": speed})
                row(**{"eval/accuracy": accuracy(model, normalised, images[validation], labels[validation])})
                began, since = time.time(), step
        row(**{"test/accuracy": accuracy(model, normalised, *read(options.images / "test"))})


def read(folder: Path):
    """Returns the images [n, 3, 32, 32] uint8 and labels of a folder with one for each class."""
    from PIL import Image

    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor([label for _, label in files])


def batches_of(examples):
    """Yields batches of whole epochs, shuffled anew in each and joined where one ends."""
    rest = examples[:0]
    while True:
        rest = torch.cat([rest, examples[torch.randperm(len(examples))]])
        while len(rest) >= BATCH:
            yield rest[:BATCH]
            rest = rest[BATCH:]


def augmented(images):
    """Crops each image out of itself with a border of zeros, and mirrors half of them."""
    n, _, height, width = images.shape
    padded = functional.pad(images, (PADDING,) * 4)
    rows = torch.randint(2 * PADDING + 1, (n, 1)) + torch.arange(height)
    columns = torch.randint(2 * PADDING + 1, (n, 1)) + torch.arange(width)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(model, normalised, images, labels) -> float:
    model.eval()
    right = sum(
        (model(normalised(images[i : i + 500])).argmax(1) == labels[i : i + 500]).sum().item()
        for i in range(0, len(images), 500)
    )
    model.train()
    return right / len(images)


if __name__ == "__main__":
    main()
