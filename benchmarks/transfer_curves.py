"""Accuracy against time of the ways to fine-tune, from one folder of images: a table, and with matplotlib a plot.

python benchmarks/transfer_curves.py --images DIR [--size 128] [--epochs 3] [--seeds 3] [--plot FILE] [--json FILE]

`--images` has train/ and test/ with a folder for each class. Each training starts anew in a process of its own, and is
measured on the test split: `--config finetune` once at its end, as it holds out validation images to choose by, and the
others after each epoch. The time counts from the command, with programs compiled before (a first run of each, which is
not counted).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from curves import Curve, draw, points
from machine import machine

PRETRAINED = {"name": "efficientnet_lite0", "pretrained": "efficientnet_lite0"}
LAST = {"before": "stage6"}
FINETUNE = {"head on features": "head", "head, then last two stages": "last"}  # config.finetune.method
WAYS = {  # of an ordinary training, what each changes
    "last two stages": {"freeze": LAST},
    "last two stages, BatchNorm statistics": {"freeze": {**LAST, "batch_norm": "statistics"}},
    "last two stages, BatchNorm trains": {"freeze": {**LAST, "batch_norm": "train"}},
    "all layers": {},
    "all layers, layer decay 0.8": {"optimizer": {"layer_decay": 0.8}},
    "from scratch": {"model": {"name": "efficientnet_lite0"}, "optimizer": {"learning_rate": 2e-3}},
}
TRAIN = "import json, sys, jaxnets; jaxnets.train(json.loads(sys.argv[1]), sys.argv[2], quiet=True)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine())
    found: dict[str, list[Curve]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        for name in (*FINETUNE, *WAYS):
            measure = finetune if name in FINETUNE else train
            measure(options, name, 0, Path(folder, f"{name} first"), epochs=0.1)
            found[name] = [
                measure(options, name, seed, Path(folder, f"{name} {seed}"), options.epochs)
                for seed in range(options.seeds)
            ]
            last = [run[-1] for run in found[name]]
            accuracies = [accuracy for _, accuracy in last]
            shown = ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
            seconds = statistics.mean(seconds for seconds, _ in last)
            print(f"{name:40} {statistics.mean(accuracies):.2%}  ({shown})  {seconds:5.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found))
    if options.plot:
        draw(found, options.plot, "accuracy on the test split")


def finetune(options, name: str, seed: int, workdir: Path, epochs: float) -> Curve:
    keys = {
        "data.source": f"folder:{options.images}",
        "data.image_size": options.size,
        "seed": seed,
        "epochs": epochs,
        "schedule.warmup_epochs": 0.1 * epochs,
        "finetune.method": FINETUNE[name],
    }
    command = [sys.executable, "-m", "jaxnets.main", "--config", "finetune", "--workdir", str(workdir)]
    features = Path(os.environ["XDG_CACHE_HOME"], "jaxnets", "features")
    shutil.rmtree(features, ignore_errors=True)  # each computes its own
    began = time.time()
    subprocess.run(
        [*command, *(f"--config.{key}={value}" for key, value in keys.items())], check=True, stdout=subprocess.DEVNULL
    )
    return points(workdir, "test/accuracy", began)


def train(options, name: str, seed: int, workdir: Path, epochs: float) -> Curve:
    change = WAYS[name]
    config = {
        "seed": seed,
        "batch_size": 32,
        "epochs": epochs,
        "model": change.get("model", PRETRAINED),
        "data": {"source": f"folder:{options.images}", "image_size": options.size},
        "augment": {"random_resized_crop": {"area": [0.25, 1.0]}, "flip": {"horizontal": 0.5}},
        "loss": {"label_smoothing": 0.1},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 2e-4,
            "weight_decay": 1e-3,
            "clip_norm": 1.0,
            **change.get("optimizer", {}),
        },
        "schedule": {"warmup_epochs": 0.1 * epochs},
        "freeze": change.get("freeze", {}),
    }
    began = time.time()
    subprocess.run([sys.executable, "-c", TRAIN, json.dumps(config), str(workdir)], check=True)
    return points(workdir, "eval/accuracy", began)


if __name__ == "__main__":
    main()
