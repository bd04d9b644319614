"""Times a training step of ResNet-20 (CIFAR) on a CPU: jaxnets, the same network in plain Linen, and PyTorch.

python benchmarks/cpu_training.py [--batch 256 --size 28 --channels 1 --repeats 7]

The three take turns in one run. PyTorch runs in a process of its own, from the interpreter that --torch names (one that
has torch installed; the benchmark goes on without it otherwise), in its faster memory layout, channels last.
"""

import argparse
import statistics
import subprocess
import sys
import time

STEPS = 3  # in each measurement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--torch", default=sys.executable, help="a Python interpreter that has torch")
    parser.add_argument("--serve-torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_torch:
        serve_torch(options)
        return
    runners = {"plain Linen": linen_step(options), "jaxnets": jaxnets_step(options)}
    torch = TorchProcess(options)
    if torch.works:
        runners["PyTorch"] = torch.run
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(options.repeats):
        for name, run in runners.items():
            speeds[name].append(STEPS * options.batch / run())
    reference = statistics.median(speeds["PyTorch" if torch.works else "plain Linen"])
    for name, found in speeds.items():
        median = statistics.median(found)
        print(
            f"{name:12} {median:7.0f} images/s (lowest {min(found):.0f}, highest {max(found):.0f}, n = {len(found)})"
            f"  {median / reference:.2f} ×"
        )


def jaxnets_step(options):
    """The program that training dispatches: steps in a loop, over images that lie on the device."""
    import jax
    import numpy as np
    import optax

    from jaxnets import create_model
    from jaxnets.preprocess import Preprocess
    from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
    from jaxnets.recipe.recipe import Recipe
    from jaxnets.train.mesh import make_mesh, over_data
    from jaxnets.train.step import init_state, make_chunk, make_train_step

    grey = (0.5,) * options.channels
    preprocess = Preprocess(
        height=options.size, width=options.size, channels=options.channels, mean=grey, std=grey
    )  # fmt: skip
    model = create_model("resnet20_cifar")
    recipe = Recipe(
        loss=SoftmaxCrossEntropy(), optimizer=optax.sgd(0.01, momentum=0.9), schedule=optax.constant_schedule(0.01)
    )
    step = make_train_step(model, preprocess, recipe, seed=0)
    chunk = jax.jit(make_chunk(step, STEPS, over_data(make_mesh())))
    state = init_state(model, preprocess, recipe, 0)
    batch = jaxnets_batch(options)
    index = np.stack([batch.index] * STEPS)
    arrays = jax.device_put((batch.image, batch.aspect, batch.label, index, index * 0))

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        state, _ = chunk(state, *arrays, STEPS)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    run()
    return run


def jaxnets_batch(options):
    import numpy as np

    from jaxnets.data.batch import Batch

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (options.batch, options.size, options.size, options.channels), np.uint8)
    index = np.arange(options.batch, dtype=np.int32)
    return Batch(image, index % 10, index >= 0, index, index * 0, np.ones(options.batch, np.float32))


def linen_step(options):
    """The same network from Linen's own layers, differentiated as it stands."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen as nn

    class ResNet20(nn.Module):
        @nn.compact
        def __call__(self, x):
            def conv(features, stride=1):
                return nn.Conv(features, (3, 3), (stride, stride), ((1, 1), (1, 1)), use_bias=False)

            def norm():
                return nn.BatchNorm(use_running_average=False, momentum=0.9)

            x = nn.relu(norm()(conv(16)(x)))
            for stage, features in enumerate((16, 32, 64)):
                for block in range(3):
                    stride = 2 if stage and not block else 1
                    y = nn.relu(norm()(conv(features, stride)(x)))
                    y = norm()(conv(features)(y))
                    if stride == 2:
                        x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, features // 2)))
                    x = nn.relu(x + y)
            return nn.Dense(10)(x.mean((1, 2)))

    model, optimizer = ResNet20(), optax.sgd(0.01, momentum=0.9)
    batch = jaxnets_batch(options)
    image = (jnp.asarray(batch.image, jnp.float32) / 255 - 0.5) / 0.5
    variables = model.init(jax.random.key(0), image[:2])

    def step(state, batch):
        params, stats, moments = state

        def loss_of(params):
            logits, changed = model.apply({"params": params, "batch_stats": stats}, image, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.label).mean(), changed["batch_stats"]

        (loss, stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        change, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, change), stats, moments), loss

    compiled = jax.jit(step)
    state = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))
    batch = jax.device_put(batch)

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(STEPS):
            state, _ = compiled(state, batch)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    run()
    return run


class TorchProcess:
    def __init__(self, options) -> None:
        sizes = [f"--{name}={getattr(options, name)}" for name in ("batch", "size", "channels")]
        self._process = subprocess.Popen(
            [options.torch, __file__, "--serve-torch", *sizes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.works = self._process.stdout.readline().startswith("ready")

    def run(self) -> float:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def serve_torch(options) -> None:
    import torch
    from torch.nn import functional
    from torch_resnet20 import resnet20

    model = resnet20(options.channels)
    x = torch.randn(options.batch, options.channels, options.size, options.size)
    x = x.to(memory_format=torch.channels_last)
    label = torch.arange(options.batch) % 10
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def run():
        start = time.perf_counter()
        for _ in range(STEPS):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), label).backward()
            optimizer.step()
        return time.perf_counter() - start

    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(run(), flush=True)


if __name__ == "__main__":
    main()
