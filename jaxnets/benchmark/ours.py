"""How quickly jaxnets delivers training batches; started as `peers.py` is, by the Python that runs the benchmark.

- stream: files are read, decoded and squeezed to the training canvas, and lie in a full batch of host arrays with
  labels and aspects. What cuts the random box out of the canvas and flips it is the step's, on the device: see "cut".
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
from jaxnets.data.canvas import canvas_for
from jaxnets.data.examples import Examples
from jaxnets.data.order import Order
from jaxnets.data.pipeline import train_stream
from jaxnets.data.sources import open_source
from jaxnets.preprocess import Preprocess

_COPIED = 256 * 2**20  # bytes of the canvases that are copied: more than any cache holds
_STEPS = 2**31 - 1  # more than there is time for


def open_examples(job: dict[str, Any]) -> tuple[Examples, Preprocess]:
    """Opens the training images of the job's source on the canvas that a model of the job's size has."""
    source = open_source(DataConfig(source=job["source"], directory=job["directory"]), seed=0)
    size, channels = job["size"], source.channels
    preprocess = Preprocess(height=size, width=size, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)
    canvas = canvas_for(source, preprocess, job["canvas_size"])
    train = source.splits["train"]
    return Examples(train, np.arange(len(train)), canvas, skip_corrupt=True), preprocess


def _stream(job: dict[str, Any]) -> tuple[dict[str, str], Open]:
    examples, _ = open_examples(job)
    order = Order(0, examples.labels)

    def stream() -> Iterator[int]:
        batches = train_stream(
            examples,
            order=order,
            batch_size=job["batch_size"],
            start_step=0,
            stop_step=_STEPS // job["batch_size"],
            threads=job["threads"],
        )
        try:
            for batch in batches:
                yield len(batch.image)
        finally:
            batches.close()

    return {"canvas": "×".join(map(str, examples.shape))}, stream


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

    from jaxnets.recipe.augment.flip import Flip
    from jaxnets.recipe.augment.op import keys_of
    from jaxnets.recipe.augment.random_resized_crop import RandomResizedCrop
    from jaxnets.recipe.augment.table import AugmentConfig, cut_and_ops

    examples, preprocess = open_examples(job)
    crop = RandomResizedCrop(area=(0.08, 1.0))
    spec = AugmentConfig(random_resized_crop=crop, flip=Flip(horizontal=0.5))
    cut, _ = cut_and_ops(spec, preprocess, canvas_is_input=False)
    assert cut is not None
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


OURS = {"stream": _stream, "prepared": _stream, "copy": _copy, "cut": _cut}

if __name__ == "__main__":
    serve(OURS[sys.argv[1]])
