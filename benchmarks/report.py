"""How long a report takes and how much memory, without the forward passes: `python benchmarks/report.py 50000 1000`.

Logits and images are made up: so many images, in so many classes. What is timed is all that
`python -m jaxnets.evaluate` does after the last forward pass, but for Grad-CAM and the cost of the model, which take
forward passes of their own.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxnets.config import resolve
from jaxnets.data.examples import Examples
from jaxnets.data.sources import ArraySplit
from jaxnets.evaluate.files import metrics_text, write_file
from jaxnets.evaluate.page.report import report
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.report import metrics_report
from jaxnets.evaluate.run import Evaluation, merged
from jaxnets.evaluate.single_label import judge
from jaxnets.evaluate.sums import sums_over
from jaxnets.evaluate.write import write_table
from jaxnets.metrics.table import EVALUATION
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
from jaxnets.run.directory import ModelCard, RunDirectory

SIDE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=int)
    parser.add_argument("classes", type=int)
    options = parser.parse_args()
    n, classes = options.images, options.classes
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, n).astype(np.int32)
    logits = random.standard_normal((n, classes), np.float32)
    logits[np.arange(n), labels] += 4
    names = tuple(f"class {i}" for i in range(classes))
    images = np.broadcast_to(random.integers(0, 256, (1, SIDE, SIDE, 3), np.uint8), (n, SIDE, SIDE, 3))
    grey = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    preprocess = Preprocess(height=SIDE, width=SIDE, channels=3, **grey)
    examples = Examples(ArraySplit(images, labels), np.arange(n), preprocess, skip_corrupt=False)
    start = time.perf_counter()

    def say(what: str) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what:24} after {time.perf_counter() - start:6.1f} s, at most {used:.2f} GiB", flush=True)

    say("logits are there")
    paths = tuple(f"test/{i}.jpg" for i in range(n))
    predictions = Predictions(class_names=names, labels=labels, logits=logits, paths=paths, split="test")
    judged = judge(predictions)
    say("judged")
    total = sums_over(predictions, SoftmaxCrossEntropy(), EVALUATION)
    metrics = merged(metrics_report(total, names, split="test", model="made up", step=0), judged)
    say("sums")
    with tempfile.TemporaryDirectory() as folder:
        evaluation = Evaluation(
            run=RunDirectory(Path(folder)),
            config=resolve({}),
            card=ModelCard(name="made up", fields={}, class_names=names, preprocess=preprocess, data={}),
            asked=None,  # type: ignore[arg-type]
            classifier=None,
            examples=examples,
            predictions=predictions,
            judged=judged,
            temperature=1.0,
            metrics={**metrics, "source": "made up", "notes": []},
        )
        write_file(Path(folder) / "metrics.json", metrics_text(evaluation.metrics).encode())
        say("metrics.json")
        write_table(evaluation, Path(folder) / "predictions.csv", parquet=False)
        say("predictions.csv")
        drawn = report(evaluation, None)
        write_file(Path(folder) / "index.html", drawn.html.encode())
        say("index.html")
        sizes = ", ".join(f"{file.name} {file.stat().st_size / 2**20:.1f} MiB" for file in Path(folder).iterdir())
    print(sizes)


if __name__ == "__main__":
    main()
