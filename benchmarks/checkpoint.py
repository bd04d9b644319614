"""Times saving and restoring a ResNet-50 state: `python benchmarks/checkpoint.py [--directory DIR]`.

The state is that of SGD with momentum, about 200 MB in float32. What counts is how long `save` keeps the training
thread; the writing goes on beside it. Restoring includes the checksums of every file.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxnets import create_model
from jaxnets.config import Config
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
from jaxnets.recipe.optimizer.table import make_optimizer
from jaxnets.recipe.recipe import Recipe
from jaxnets.run.checkpoints import Progress
from jaxnets.train.mesh import make_mesh, replicated
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState, init_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where to write (default: the system's temporary directory)")
    parser.add_argument("--repeats", type=int, default=5, help="saves and restores (default 5)")
    options = parser.parse_args()

    everywhere = replicated(make_mesh())
    shapes = jax.eval_shape(fresh_state)
    state = jax.tree.map(lambda x: jax.device_put(jnp.ones(x.shape, x.dtype), everywhere), shapes)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
    megabytes = sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        stalls, writes, restores = measure(Path(folder), state, like, options.repeats)
    device = jax.devices()[0].device_kind
    print(f"ResNet-50 state, {megabytes:.0f} MB, {jax.device_count()} × {device}, JAX {jax.__version__}")
    for name, seconds in (("save, stall", stalls), ("save, on disk", writes), ("restore", restores)):
        print(
            f"{name:14} {1000 * statistics.median(seconds):6.0f} ms  "
            f"(lowest {1000 * min(seconds):.0f}, highest {1000 * max(seconds):.0f}, n = {len(seconds)})"
        )


def fresh_state() -> TrainState:
    model = create_model("resnet50", num_classes=1000)
    preprocess = Preprocess(height=224, width=224, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    optimizer = make_optimizer(Config().optimizer, lambda step: 0.1)
    recipe = Recipe(loss=SoftmaxCrossEntropy(), optimizer=optimizer, schedule=lambda step: 0.1)
    return init_state(model, preprocess, recipe, 0)


def measure(
    directory: Path, state: TrainState, like: TrainState, repeats: int
) -> tuple[list[float], list[float], list[float]]:
    """Returns the seconds that each save kept the thread and took in all, and that each restore took."""
    checkpointer = Checkpointer(directory)
    stalls, writes, restores = [], [], []
    for step in range(repeats + 1):
        start = time.perf_counter()
        checkpointer.save(state, Progress(step=step))
        stalls.append(time.perf_counter() - start)
        checkpointer.wait()
        writes.append(time.perf_counter() - start)
    for _ in range(repeats):
        start = time.perf_counter()
        restored = checkpointer.restore(lambda step: like)
        jax.block_until_ready(restored)
        restores.append(time.perf_counter() - start)
    checkpointer.close()
    return stalls[1:], writes[1:], restores  # the first save compiles


if __name__ == "__main__":
    main()
