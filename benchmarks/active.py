"""Accuracy against labels when a model chooses which images are labelled next: a table, and with --plot a plot.

python benchmarks/active.py --source idx:DIR [--json FILE] [--plot FILE]

What is trained each round is a head (logistic regression) on features of a pretrained network, which are computed once:
that is what `python -m jaxnets.main --config finetune` does on a CPU, and it takes seconds. All methods begin with the
same images, drawn from the seed; each round adds those that the method chooses with their true labels. Measured on test
images, that no method sees.
"""

import argparse
import json
import statistics
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import machine

from jaxnets import figures
from jaxnets.answer import activated
from jaxnets.config import DataConfig
from jaxnets.cores import cores
from jaxnets.data.sources import open_source
from jaxnets.finetune.linear import Linear, Scale, Span, logistic
from jaxnets.loading import load
from jaxnets.select.methods import METHODS, Pool
from jaxnets.vectors import backbone_of

Curves = dict[str, list[list[float]]]  # accuracy by method, of each seed, after each round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="as config.data.source")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=64, help="pixels that images are brought to")
    parser.add_argument("--pool", type=int, default=10_000, help="training images to choose from")
    parser.add_argument("--test", type=int, default=5_000, help="test images")
    parser.add_argument("--start", type=int, default=50, help="labels that all methods begin with")
    parser.add_argument("--step", type=int, default=50, help="labels that each round adds")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--l2", type=float, default=0.03, help="regularisation of the head on standardised features")
    parser.add_argument("--features", type=Path, help="file to keep the features in, or to take them from")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    print(machine())
    train, test = features(options)
    budgets = [options.start + options.step * i for i in range(options.rounds + 1)]
    curves: Curves = {}
    for method in options.methods:
        began = time.time()
        curves[method] = [curve(method, seed, train, test, budgets, options.l2) for seed in range(options.seeds)]
        row = "  ".join(f"{mean:.2%}" for mean in means(curves[method]))
        print(f"{method:8} {row}  ({time.time() - began:.0f} s)", flush=True)
    print(f"labels   {'  '.join(f'{budget:6}' for budget in budgets)}")
    shares = needed(curves, budgets)
    for method, share in shares.items():
        print(f"{method}: random's last accuracy with {share:.0%} of its labels" if share else f"{method}: not reached")
    if options.json:
        about = {key: str(value) for key, value in vars(options).items()}
        content = {"machine": machine(), "options": about, "labels": budgets, "accuracy": curves, "needed": shares}
        options.json.write_text(json.dumps(content, indent=1))
    if options.plot:
        draw(curves, budgets, options.plot)


class Data:
    def __init__(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        self.vectors, self.labels = vectors, labels


def features(options) -> tuple[Data, Data]:
    """Returns the vectors and labels of the training images to choose from, and of the test images."""
    if options.features and options.features.exists():
        kept = np.load(options.features)
        return Data(kept["train"], kept["train_labels"]), Data(kept["test"], kept["test_labels"])
    began = time.time()
    source = open_source(DataConfig(source=options.source), 0)
    classifier = load(options.model, engine="jax")
    seen = replace(classifier.preprocess, height=options.size, width=options.size, crop_fraction=1.0)
    embedder = backbone_of(replace(classifier, preprocess=seen)).embedder
    found = {}
    for name, most in (("train", options.pool), ("test", options.test)):
        split = source.splits[name]
        chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:most])

        def embed(rows: np.ndarray, split=split) -> np.ndarray:
            return embedder.embed(np.stack([seen.fit(split.image(int(i))) for i in rows]))

        blocks = [chosen[i : i + embedder.batch_size] for i in range(0, len(chosen), embedder.batch_size)]
        parts: deque[np.ndarray] = deque()
        with ThreadPoolExecutor(cores() if embedder.side_by_side else 1) as pool:
            parts.extend(pool.map(embed, blocks))
        found[name] = Data(np.concatenate(parts), split.labels[chosen])
    train, test = found["train"], found["test"]
    print(f"{len(train.labels):,} and {len(test.labels):,} vectors by {embedder.name} in {time.time() - began:.0f} s")
    if options.features:
        np.savez(options.features, train=train.vectors, train_labels=train.labels, test=test.vectors, test_labels=test.labels)  # fmt: skip  # noqa: E501
    return train, test


def curve(method: str, seed: int, train: Data, test: Data, budgets: list[int], l2: float) -> list[float]:
    """Returns the accuracy with each number of labels."""
    classes = int(train.labels.max()) + 1
    chosen = np.random.default_rng(seed).permutation(len(train.labels))[: budgets[0]]
    accuracies: list[float] = []
    for budget in budgets:
        if budget > len(chosen):
            left = np.setdiff1d(np.arange(len(train.labels)), chosen)
            vectors = train.vectors[left]
            probabilities = activated(head(vectors), "softmax")
            pool = Pool(vectors, probabilities, train.vectors[chosen], seed=1000 * seed + budget)
            chosen = np.concatenate([chosen, left[METHODS[method](pool, budget - len(chosen)).images]])
        head = fit(train.vectors[chosen], train.labels[chosen], classes, l2)
        accuracies.append(float((head(test.vectors).argmax(1) == test.labels).mean()))
    return accuracies


def fit(vectors: np.ndarray, labels: np.ndarray, classes: int, l2: float) -> Linear:
    scale = Scale.of(vectors)
    span = Span.of(scale(vectors.astype(np.float64)))
    found = logistic(span.features, np.eye(classes)[labels], l2).linear
    return scale.undo(span.undo(found))


def means(runs: list[list[float]]) -> list[float]:
    return [statistics.mean(column) for column in zip(*runs, strict=True)]


def needed(curves: Curves, budgets: list[int]) -> dict[str, float | None]:
    """Returns the share of random's labels with which each method's mean accuracy reaches random's last one."""
    if "random" not in curves:
        return {}
    goal = means(curves["random"])[-1]
    shares: dict[str, float | None] = {}
    for method, runs in curves.items():
        mean = means(runs)
        if method == "random":
            continue
        at = next((i for i, accuracy in enumerate(mean) if accuracy >= goal), None)
        if at is None:
            shares[method] = None
        elif at == 0:
            shares[method] = budgets[0] / budgets[-1]
        else:  # between two rounds, in proportion
            part = (goal - mean[at - 1]) / (mean[at] - mean[at - 1])
            shares[method] = (budgets[at - 1] + part * (budgets[at] - budgets[at - 1])) / budgets[-1]
    return shares


def draw(curves: Curves, budgets: list[int], path: Path) -> None:
    figure = figures.new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for (method, runs), colour in zip(curves.items(), figures.COLOURS, strict=False):
        table = np.array(runs)
        style = "--" if method == "random" else "-"
        axes.plot(budgets, table.mean(0), style, color=colour, label=method, marker="o", markersize=3)
        axes.fill_between(budgets, table.min(0), table.max(0), color=colour, alpha=0.12, linewidth=0)
    axes.set_xlabel("labels")
    axes.set_ylabel("accuracy on test images")
    axes.legend(loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
