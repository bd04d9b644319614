"""Fine-tuning on a CPU beside PyTorch and scikit-learn: from the command to the result, features, all layers, folds.

python benchmarks/transfer.py --images DIR [--breeds CSV] --torch PYTHON [--parts command,training,folds] [--json FILE]

`--images` has train/ and test/ with a folder for each class, `--breeds` is a CSV of few images with noisy labels, and
`--torch` an interpreter that has torch, timm and safetensors. jaxnets has caches of its own here, empty at first. Each
line runs in a process of its own, one after the other; memory is the most that it held.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEPS = 8  # of training that are timed, after two
TRAIN = """
import json, sys, jaxnets
jaxnets.train(json.loads(sys.argv[1]), sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--breeds", type=Path)
    parser.add_argument("--torch", default=sys.executable, help="a Python interpreter that has torch")
    parser.add_argument("--parts", default="command,training,folds")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--serve-torch", choices=("features", "training"), help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_torch:
        {"features": torch_features, "training": torch_training}[options.serve_torch](options)
        return
    from machine import machine  # jaxnets and scikit-learn, which PyTorch's interpreter need not have

    print(machine())
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        options.weights = Path(folder, "weights", "model.safetensors")
        export = [sys.executable, "-m", "jaxnets.export", "--model", "efficientnet_lite0", "--format", "safetensors"]
        subprocess.run([*export, "--out", options.weights], check=True, capture_output=True)
        for part in options.parts.split(","):
            found[part] = PARTS[part](options, Path(folder))
            for name, row in found[part].items():
                print(f"{part:9} {name:34} " + "  ".join(f"{key} {value:g}" for key, value in row.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def run(command: list, **environment: str) -> tuple[float, float, str]:
    """Returns the seconds that a command took, the MiB that it held at most, and what it printed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command[:6]))} … ended with {status}:\n{out}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024, out


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def from_command_to_result(options, folder: Path) -> dict:
    """A fine-tune as it is typed, again with another head, and PyTorch's features with scikit-learn's head."""
    command = [sys.executable, "-m", "jaxnets.main", "--config", "finetune"]
    command += [f"--config.data.source=folder:{options.images}", "--workdir"]
    found = {}
    for name, change in (("jaxnets", ()), ("jaxnets again, another head", ("--config.finetune.solver=ridge",))):
        seconds, mib, _ = run([*command, folder / name.replace(" ", "_").replace(",", ""), *change])
        accuracy = next(
            row["test/accuracy"]
            for row in rows(folder / name.replace(" ", "_").replace(",", ""))
            if "test/accuracy" in row
        )
        found[name] = {"seconds": seconds, "MiB": mib, "accuracy": accuracy}
    start = time.perf_counter()
    features, mib, speed = peer_features(options, options.images, folder)
    labels = {split: np.array([Path(path).parent.name for path in paths]) for split, (paths, _) in features.items()}
    head = fit(features["train"][1], np.tile(labels["train"], 2))
    accuracy = head.score(features["test"][1][: len(labels["test"])], labels["test"])
    found["PyTorch's features, scikit-learn"] = {
        "seconds": time.perf_counter() - start,
        "MiB": mib,
        "accuracy": accuracy,
        "images_per_second": speed,
    }
    return found | feature_speeds(options)


def fit(features: np.ndarray, labels: np.ndarray):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return GridSearchCV(pipeline, {"logisticregression__C": np.logspace(-4, 1, 6)}, cv=5).fit(features, labels)


def peer_features(options, images: Path, folder: Path) -> tuple[dict, float, float]:
    """Returns paths and features (as they are, then mirrored) of each split, memory, and images per second."""
    out = folder / "features.npz"
    command = [options.torch, __file__, "--serve-torch", "features", "--images", images, "--weights", options.weights]
    _, mib, said = run([*command, "--json", out])
    loaded = np.load(out)
    splits = {name: (loaded[f"{name}_paths"], loaded[name]) for name in ("train", "test") if name in loaded}
    return splits, mib, float(said.split()[-1])


def feature_speeds(options) -> dict:
    """How many images a second go through the network: as the command computes them, and ONNX Runtime alone."""
    code = """
import sys, time, json, numpy as np
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import jaxnets
from jaxnets.cores import cores
from jaxnets.data.given import as_image
from jaxnets.engine.embedding import open_embedder
c = jaxnets.load("efficientnet_lite0")
e = open_embedder(c.model, c.variables, c.preprocess, name=c.name, matmul_precision="default")
paths = sorted(map(str, Path(sys.argv[1], "train").glob("*/*.jpg")))[:400]
fitted = np.stack([c.preprocess.fit(as_image(path, 65535)) for path in paths[:e.batch_size]])
e.embed(fitted)
batches = [paths[i:i + e.batch_size] for i in range(0, len(paths), e.batch_size)]
with ThreadPoolExecutor(cores()) as pool:
    t = time.perf_counter(); list(pool.map(lambda b: e.embed(fitted), batches)); alone = time.perf_counter() - t
    t = time.perf_counter()
    list(pool.map(lambda b: e.embed(np.stack([c.preprocess.fit(as_image(p, 65535)) for p in b])), batches))
    whole = time.perf_counter() - t
import onnxruntime as ort
session = ort.InferenceSession(sys.argv[2])
x = np.random.default_rng(0).random((32, 3, 224, 224), np.float32)
name = session.get_inputs()[0].name
session.run(None, {name: x})
t = time.perf_counter()
for _ in range(12): session.run(None, {name: x})
print(json.dumps([len(paths) / whole, len(batches) * len(fitted) / alone, 12 * 32 / (time.perf_counter() - t)]))
"""
    onnx = options.weights.with_name("model.onnx")
    export = [sys.executable, "-m", "jaxnets.export", "--model", "efficientnet_lite0", "--format", "onnx"]
    subprocess.run([*export, "--out", onnx], check=True, capture_output=True)
    _, mib, out = run([sys.executable, "-c", code, options.images, onnx])
    files, arrays, session = json.loads(out.splitlines()[-1])
    return {
        "features from files": {"images_per_second": files, "MiB": mib},
        "features from arrays": {"images_per_second": arrays},
        "ONNX Runtime's session alone": {"images_per_second": session},
    }


def training(options, folder: Path) -> dict:
    """All layers and the last two stages at 224 in batches of 32, with a cold and a warm cache, and PyTorch."""
    base = {
        "batch_size": 32,
        "steps": STEPS + 2,
        "log_every_steps": 1,
        "eval_every_steps": 100,
        "model": {"name": "efficientnet_lite0", "pretrained": "efficientnet_lite0"},
        "data": {"source": f"folder:{options.images}", "test_share": 0.2},
        "augment": {"random_resized_crop": {"area": [0.25, 1.0]}, "flip": {"horizontal": 0.5}},
        "optimizer": {"name": "sgd", "learning_rate": 0.003},
    }
    found = {}
    for name, change in (
        ("all layers, cold", {}),
        ("all layers, warm", {}),
        ("last two stages, cold", {"freeze": {"before": "stage6"}}),
        ("last two stages, warm", {"freeze": {"before": "stage6"}}),
    ):
        workdir = folder / name.replace(" ", "_").replace(",", "")
        began = time.time()
        _, mib, _ = run([sys.executable, "-c", TRAIN, json.dumps({**base, **change}), workdir])
        times = [row["time"] for row in rows(workdir) if "train/loss" in row]
        steps = np.diff(times)[1:]
        found[name] = {
            "images_per_second": 32 / statistics.median(steps),
            "MiB": mib,
            "seconds_to_first_step": times[0] - began,
        }
    command = [options.torch, __file__, "--serve-torch", "training", "--images", options.images]
    _, mib, said = run([*command, "--weights", options.weights])
    found["PyTorch, all layers"] = {"images_per_second": float(said.split()[-1]), "MiB": mib}
    return found


def folds(options, folder: Path) -> dict:
    """Five folds of few images, three times; scikit-learn on PyTorch's features in the same folds."""
    command = [sys.executable, "-m", "jaxnets.finetune", f"--config.data.source=csv:{options.breeds}"]
    _, _, out = run([*command, "--folds", 5, "--seeds", 3, "--json"])
    ours = json.loads(out)
    features, _, _ = peer_features(options, options.breeds.parent, folder)
    paths, vectors = features["train"]
    place = {Path(path).stem: i for i, path in enumerate(paths)}
    order = [place[Path(name).stem] for name in ours["names"]]
    labels = labels_of(options.breeds, [Path(name).stem for name in ours["names"]])
    n, theirs = len(paths), []
    for fold_of in ours["fold_of"].values():
        for fold in range(5):
            rest = np.flatnonzero(np.array(fold_of) != fold)
            held = np.flatnonzero(np.array(fold_of) == fold)
            rows_of = np.array(order)
            both = np.concatenate([vectors[rows_of[rest]], vectors[n + rows_of[rest]]])
            theirs.append(fit(both, np.tile(labels[rest], 2)).score(vectors[rows_of[held]], labels[held]))
    mean, spread = ours["figures"]["accuracy"]
    return {
        "jaxnets": {"accuracy": mean, "spread": spread},
        "PyTorch's features, scikit-learn": {"accuracy": np.mean(theirs), "spread": np.std(theirs, ddof=1)},
    }


def labels_of(table: Path, stems: list[str]) -> np.ndarray:
    lines = [line.split(",") for line in table.read_text().splitlines()[1:]]
    by_stem = {Path(name).stem: label for name, label in lines}
    return np.array([by_stem[stem] for stem in stems])


PARTS = {"command": from_command_to_result, "training": training, "folds": folds}


def torch_model(options, classes: int):
    import timm
    from safetensors.torch import load_file

    config = json.loads(options.weights.with_name("config.json").read_text())
    model = timm.create_model(config["architecture"], num_classes=1000, **config.get("model_args", {}))
    model.load_state_dict(load_file(options.weights))
    if classes:
        model.reset_classifier(classes)
    return model, config["pretrained_cfg"]


def torch_features(options) -> None:
    """Prints images per second; writes the features of all images, those of training mirrored too."""
    import torch
    from PIL import Image

    model, config = torch_model(options, 0)
    model.eval()
    size = config["input_size"][1]
    resized = int(size / config["crop_pct"])
    kernel = {"bilinear": 2, "bicubic": 3}[config["interpolation"]]
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))

    def read(path: Path):
        image = Image.open(path).convert("RGB")
        scale = resized / min(image.size)
        image = image.resize([max(round(side * scale), resized) for side in image.size], kernel)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        pixels = np.array(image.crop((left, top, left + size, top + size)))
        return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / std

    found, images, seconds = {}, 0, 0.0
    with torch.inference_mode():
        for split in ("train", "test"):
            paths = sorted(path for path in options.images.glob(f"{split}/**/*") if path.suffix.lower() == ".jpg")
            vectors = []
            for mirrored in (False, True) if split == "train" else (False,):
                for start in range(0, len(paths), 32):
                    began = time.perf_counter()
                    batch = torch.stack([read(path) for path in paths[start : start + 32]])
                    batch = batch.flip(3) if mirrored else batch
                    vectors.append(model.forward_head(model.forward_features(batch), pre_logits=True).numpy())
                    images, seconds = images + len(batch), seconds + time.perf_counter() - began
            if paths:
                found[split] = np.concatenate(vectors)
                found[f"{split}_paths"] = np.array([str(path) for path in paths])
    np.savez(options.json, **found)
    print(images / seconds)


def torch_training(options) -> None:
    """Prints the images per second of training all layers on images that lie in memory."""
    import torch

    model, _ = torch_model(options, 2)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.003, momentum=0.9, nesterov=True)
    x = torch.randn(32, 3, 224, 224).to(memory_format=torch.channels_last)
    label = torch.arange(32) % 2
    times = []
    for _ in range(STEPS + 2):
        began = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), label).backward()
        optimizer.step()
        times.append(time.perf_counter() - began)
    print(32 / statistics.median(times[2:]))


if __name__ == "__main__":
    main()
