"""How quickly jaxnets delivers training batches; started as `peers.py` is, by the Python that runs the benchmark.

- stream: files are read and decoded, the random box is cut out of them at the model's size, and the images lie in a
  full batch of host arrays with labels and aspects; what mirrors them is the step's.
- canvases: the same, squeezed whole to the training canvas. The box is then cut on the device: see "cut".
- prepared: the same from a prepared source, whose canvases are read and copied into the batch.
- copy: canvases of the same size, in random order, are copied from memory into a new batch, by one thread: the least
  that a batch can cost.
- cut: batches of canvases that lie on the device are cut to the model's size there, by the jitted function alone.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnets.benchmark.peers import Open, serve
from jaxnets.config import DataConfig
from jaxnets.data.boxes import Boxes
from jaxnets.data.canvas import Canvas, canvas_for
from jaxnets.data.examples import Examples
from jaxnets.data.order import Order
from jaxnets.data.pipeline import train_stream
from jaxnets.data.sources import open_source
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.cut import Cut
from jaxnets.recipe.augment.flip import Flip
from jaxnets.recipe.augment.op import keys_of
from jaxnets.recipe.augment.random_resized_crop import RandomResizedCrop
from jaxnets.recipe.augment.table import AugmentConfig, cut_and_ops
from jaxnets.train.boxes import make_boxes

_COPIED = 256 * 2**20  # bytes of the canvases that are copied: more than any cache holds
_STEPS = 2**31 - 1  # more than there is time for


def open_examples(job: dict[str, Any], *, cut: bool = False) -> tuple[Examples, Preprocess]:
    """Opens the training images of the job's source, on the canvas that a model of its size has, or to be `cut`."""
    source = open_source(DataConfig(source=job["source"], directory=job["directory"]), seed=0)
    size, channels = job["size"], source.channels
    preprocess = Preprocess(height=size, width=size, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)
    whole = Canvas(height=size, width=size, channels=channels)
    canvas = whole if cut else canvas_for(source, preprocess, job["canvas_size"])
    train = source.splits["train"]
    return Examples(train, np.arange(len(train)), canvas, skip_corrupt=True, cut=cut), preprocess


def _stream(job: dict[str, Any]) -> tuple[dict[str, str], Open]:
    examples, preprocess = open_examples(job, cut=True)
    cut = _cut_of(preprocess, cut_by_host=True)
    return {"images": "×".join(map(str, examples.shape))}, _batches(examples, job, make_boxes(cut, 0, seed=0))


def _canvases(job: dict[str, Any]) -> tuple[dict[str, str], Open]:
    examples, _ = open_examples(job)
    return {"canvas": "×".join(map(str, examples.shape))}, _batches(examples, job)


def _batches(examples: Examples, job: dict[str, Any], boxes: Boxes | None = None) -> Open:
    order = Order(0, examples.labels)

    def stream() -> Iterator[int]:
        batches = train_stream(
            examples,
            order=order,
            batch_size=job["batch_size"],
            start_step=0,
            stop_step=_STEPS // job["batch_size"],
            threads=job["threads"],
            boxes=boxes,
        )
        try:
            for batch in batches:
                yield len(batch.image)
        finally:
            batches.close()

    return stream


def _copy(job: dict[str, Any]) -> tuple[dict[str, str], Open]:
    shape = open_examples(job)[0].shape
    random = np.random.default_rng(0)
    canvases = random.integers(0, 256, (max(_COPIED // int(np.prod(shape)), 1), *shape), np.uint8)

    def stream() -> Iterator[int]:
        while True:
            yield len(canvases[random.integers(0, len(canvases), job["batch_size"])])

    return {"numpy": np.__version__}, stream


def _cut(job: dict[str, Any]) -> tuple[dict[str, str], Open]:
    import jax

    examples, preprocess = open_examples(job)
    cut = _cut_of(preprocess)
    random, batch = np.random.default_rng(0), job["batch_size"]
    canvases = jax.device_put(random.integers(0, 256, (batch, *examples.shape), np.uint8))
    aspects = jax.device_put(random.uniform(0.5, 2, batch).astype(np.float32))
    index: Any = np.arange(batch, dtype=np.int32)

    @jax.jit
    def cut_all(canvases: Any, aspects: Any, epoch: Any) -> Any:
        return cut(keys_of(0, seed=0, epoch=epoch, index=index), canvases, aspects)

    def stream() -> Iterator[int]:
        epoch = np.zeros_like(index)
        while True:
            yield len(jax.block_until_ready(cut_all(canvases, aspects, epoch)))
            epoch += 1

    return {"jax": jax.__version__, "device": jax.devices()[0].device_kind}, stream


def _cut_of(preprocess: Preprocess, *, cut_by_host: bool = False) -> Cut:
    crop = RandomResizedCrop(area=(0.08, 1.0))
    spec = AugmentConfig(random_resized_crop=crop, flip=Flip(horizontal=0.5))
    cut, _ = cut_and_ops(spec, preprocess, canvas_is_input=False, cut_by_host=cut_by_host)
    assert cut is not None
    return cut


OURS = {"stream": _stream, "canvases": _canvases, "prepared": _canvases, "copy": _copy, "cut": _cut}

if __name__ == "__main__":
    serve(OURS[sys.argv[1]])
