"""What freezing saves: operations, memory and time of a training step, by what is frozen and what its BatchNorm does.

python benchmarks/frozen_step.py [--model efficientnet_lite0 --size 224 --batch 32 --repeats 3]

Each line is a program of its own, as training compiles it. Operations and bytes are XLA's account: they do not depend
on what else the machine does. The steps are timed in turn, in one process.
"""

import argparse
import os
import statistics
import time

from machine import machine

LAST_STAGES = 2
POLICIES = ("frozen", "statistics", "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each; 0 compiles alone")
    parser.add_argument("--only", default="", help="a part of the names of the lines that are wanted")
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from jaxnets.cache import use_compilation_cache

    use_compilation_cache()
    lines = {name: Line(options, freeze) for name, freeze in frozen(options).items() if options.only in name}
    for _ in range(options.repeats):
        for line in lines.values():
            line.run()
    print(f"{options.model}, batch {options.batch}, {options.size}×{options.size}, SGD, on {machine()}")
    print(f"{'':34}{'GFLOPs':>8}{'temp MiB':>10}{'optimizer MiB':>15}{'images/s':>10}{'s/step':>18}")
    for name, line in lines.items():
        print(f"{name:34}{line}")


def frozen(options):
    """Returns what is measured, by name."""
    from jaxnets import create_model
    from jaxnets.models.registry import family_of
    from jaxnets.recipe.freeze import FreezeConfig

    model = create_model(options.model)
    first = list(family_of(model).structure(model).stages)[-LAST_STAGES]
    found = {"all layers": FreezeConfig()}
    for name, before in ((f"last {LAST_STAGES} stages", first), ("head", "head")):
        for policy in POLICIES:
            found[f"{name}, BatchNorm {policy}"] = FreezeConfig(before=before, batch_norm=policy)
    return found


class Line:
    """A compiled step and what it takes."""

    def __init__(self, options, freeze) -> None:
        import jax
        import numpy as np
        import optax

        from jaxnets import create_model
        from jaxnets.data.batch import Batch
        from jaxnets.models.registry import family_of
        from jaxnets.preprocess import Preprocess
        from jaxnets.recipe.freeze import plan_freezing
        from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
        from jaxnets.recipe.recipe import Recipe
        from jaxnets.train.step import init_state, make_train_step

        side, grey = options.size, (0.5,) * 3
        preprocess = Preprocess(height=side, width=side, channels=3, mean=grey, std=grey)
        model = create_model(options.model, num_classes=10)
        freezing = plan_freezing(freeze, family_of(model).structure(model), steps_per_epoch=1.0)
        recipe = Recipe(
            loss=SoftmaxCrossEntropy(),
            optimizer=optax.sgd(0.001, momentum=0.9),
            schedule=optax.constant_schedule(0.001),
            frozen=freezing.at(0) if freezing else None,
        )
        index = np.arange(options.batch, dtype=np.int32)
        image = np.random.default_rng(0).integers(0, 256, (options.batch, side, side, 3), np.uint8)
        self.batch = Batch(image, index % 10, index >= 0, index, index * 0, np.ones(options.batch, np.float32))
        self.state = jax.jit(
            lambda: init_state(model, preprocess, recipe, 0),
            compiler_options={"xla_backend_optimization_level": 0},  # run once
        )()
        step = jax.jit(make_train_step(model, preprocess, recipe, seed=0), donate_argnums=0)
        self.compiled = step.lower(self.state, self.batch).compile()
        self.images, self.seconds = options.batch, []
        if options.repeats:
            self.run()
            self.seconds.clear()

    def run(self) -> None:
        import jax

        start = time.perf_counter()
        self.state, _ = self.compiled(self.state, self.batch)
        jax.block_until_ready(self.state)
        self.seconds.append(time.perf_counter() - start)

    def __str__(self) -> str:
        import jax

        flops = self.compiled.cost_analysis()["flops"] / 1e9
        temporary = self.compiled.memory_analysis().temp_size_in_bytes / 2**20
        moments = sum(x.nbytes for x in jax.tree.leaves(self.state.opt_state)) / 2**20
        text = f"{flops:8.1f}{temporary:10,.0f}{moments:15.1f}"
        if not self.seconds:
            return text
        spread = f"{min(self.seconds):.2f}…{max(self.seconds):.2f}"
        return f"{text}{self.images / statistics.median(self.seconds):10.1f}{spread:>18}"


if __name__ == "__main__":
    main()
