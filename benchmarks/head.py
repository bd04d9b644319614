"""The head on features beside PyTorch with scikit-learn: `python benchmarks/head.py --source csv:FILE --torch PYTHON`.

Both compute features of `efficientnet_lite0` and fit a logistic regression on the same folds. Ours are the folds, the
features and the choice of the regularisation of `python -m jaxnets.finetune`; PyTorch computes its features in eager
mode, in a process of its own (--torch names an interpreter with torch and timm; without it they are ours), and
scikit-learn's LogisticRegression has its defaults. What is printed: images per second, accuracy by fold, their mean and
standard deviation.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

import jaxnets
from jaxnets.config import resolve
from jaxnets.config_files import read_config
from jaxnets.data.sources import open_undivided, with_absolute_paths
from jaxnets.finetune.folds import cross_validate
from jaxnets.train.display import Display

_THEIRS = """
import sys, time, numpy as np, torch
import timm
images = torch.from_numpy(np.load(sys.argv[1])).permute(0, 3, 1, 2)
model = timm.create_model("tf_efficientnet_lite0", checkpoint_path=sys.argv[2], num_classes=1000).eval()
mean, std = (torch.tensor(model.default_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
found = []
with torch.inference_mode():
    model(torch.zeros(1, 3, *images.shape[2:]))
    began = time.perf_counter()
    for batch in images.split(32):
        x = (batch.float() / 255 - mean) / std
        found.append(model.forward_head(model.forward_features(x), pre_logits=True))
    seconds = time.perf_counter() - began
np.save(sys.argv[3], torch.cat(found).numpy())
print(len(images) / seconds)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="as config.data.source")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1, help="divisions (default 1)")
    parser.add_argument("--torch", help="a Python interpreter with torch and timm")
    options = parser.parse_args()
    values = read_config("finetune")
    values.data.source = options.source
    config = resolve(values)
    data = with_absolute_paths(config.data)
    ours = cross_validate(config, folds=options.folds, seeds=range(options.seeds), display=Display())
    print(f"jaxnets: accuracy {_shown([fold.figures['accuracy'] for fold in ours.folds])}, {ours.seconds:.1f} s in all")

    train = open_undivided(data).splits["train"]
    classifier = jaxnets.load(config.model.name)
    fitted = np.stack([classifier.preprocess.fit(train.image(i)) for i in range(len(train))])
    if options.torch:
        features, speed = _by_torch(options.torch, fitted, config.model.name)
        print(f"PyTorch {speed:.1f} images/s for the features, decoding left out")
    else:
        began = time.perf_counter()
        features = classifier.embed_fitted(fitted)
        print(f"JAX {len(fitted) / (time.perf_counter() - began):.1f} images/s for the features, decoding left out")
    accuracies = []
    for numbers in ours.fold_of.values():
        for fold in range(options.folds):
            held = np.asarray(numbers) == fold
            head = LogisticRegression(max_iter=5000).fit(features[~held], train.labels[~held])
            accuracies.append(head.score(features[held], train.labels[held]))
    print(f"scikit-learn: accuracy {_shown(accuracies)}")


def _by_torch(interpreter: str, images: np.ndarray, name: str) -> tuple[np.ndarray, float]:
    """Returns the features that PyTorch computes, and its images per second."""
    with tempfile.TemporaryDirectory() as folder:
        given, weights, found = (str(Path(folder) / file) for file in ("images.npy", "model.safetensors", "found.npy"))
        np.save(given, images)
        export = ["-m", "jaxnets.export", "--model", name, "--format", "safetensors", "--out", weights]
        subprocess.run([sys.executable, *export], check=True, capture_output=True)
        done = subprocess.run([interpreter, "-c", _THEIRS, given, weights, found], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"PyTorch failed: {done.stderr[-2000:]}")
        return np.load(found), float(done.stdout.split()[-1])


def _shown(accuracies: list[float]) -> str:
    spread = np.std(accuracies, ddof=1) if len(accuracies) > 1 else 0.0
    return f"{np.mean(accuracies):.2%} ± {spread:.2%} (n = {len(accuracies)})"


if __name__ == "__main__":
    main()
