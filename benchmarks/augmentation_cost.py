"""How much of a training step the augmentation on the device is: operations and bytes by the compiler's account.

    python benchmarks/augmentation_cost.py --topology v5e:2x4 [--model resnet50] [--size 224] [--batch-per-device 128]
    python benchmarks/augmentation_cost.py --topology here --model resnet20_cifar --size 32 --dtype float32 --seconds

Steps are compiled that differ in their augmentation alone: on images of the model's size with nothing cut out; with a
random resized crop and mirroring from the default canvas; with a random one of two filters besides; and with a policy
and mixup besides. What they access and compute more than the first is the augmentation's share. None is run, unless
`--seconds` asks for the processor's time of each, the steps taking turns. Needs libtpu (`pip install 'jax[tpu]'`), or
`--topology here`.
"""

import argparse
import time

from jaxnets.plan.topology import HERE, describe, prepare_environment

prepare_environment()  # before JAX is imported

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from jaxnets import create_model  # noqa: E402
from jaxnets.data.batch import Batch  # noqa: E402
from jaxnets.data.canvas import choose_canvas  # noqa: E402
from jaxnets.plan.compiled import Program, compile_program  # noqa: E402
from jaxnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess  # noqa: E402
from jaxnets.recipe.augment.flip import Flip  # noqa: E402
from jaxnets.recipe.augment.policy.table import PolicyConfig, find_policy  # noqa: E402
from jaxnets.recipe.augment.random_resized_crop import RandomCut  # noqa: E402
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy  # noqa: E402
from jaxnets.recipe.mix import Mix  # noqa: E402
from jaxnets.recipe.recipe import Recipe  # noqa: E402
from jaxnets.train.feed import jit_train_step  # noqa: E402
from jaxnets.train.mesh import make_mesh, over_data, replicated  # noqa: E402
from jaxnets.train.step import init_state, make_train_step  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-per-device", type=int, default=128)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--policy", default="timm_rand_augment")
    parser.add_argument("--cases", type=int, nargs="*", help="numbers of those to compile, from 0; all by default")
    parser.add_argument("--seconds", action="store_true", help="run them here, and print the processor's time")
    options = parser.parse_args()
    devices = jax.devices()[:1] if options.topology == HERE else describe(options.topology).devices
    seen = Preprocess(
        height=options.size,
        width=options.size,
        channels=3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop_fraction=0.875,
        interpolation="bicubic",
    )
    canvas = choose_canvas(seen, None, None)
    side = f"from {canvas.height}×{canvas.width}"
    policy = find_policy(PolicyConfig(name=options.policy), seen)
    cases = [
        (f"nothing is cut, {options.size}×{options.size}", seen.height, {}),
        (f"random resized crop, bicubic, {side}", canvas.height, {"cut": cut(seen, "bicubic")}),
        (f"the same, a random filter, {side}", canvas.height, {"cut": cut(seen, "random")}),
        (f"{options.policy} alone", seen.height, {"ops": (policy,)}),
        (
            f"random resized crop, bicubic, {options.policy}, mixup",
            canvas.height,
            {"cut": cut(seen, "bicubic"), "ops": (policy,), "mix": Mix(mixup=0.2)},
        ),
    ]
    first, runs, images = None, [], options.batch_per_device
    print(f"{options.model}, {options.topology}, {images} images a device, jax {jax.__version__}")
    for name, height, changed in [cases[i] for i in options.cases or range(len(cases))]:
        recipe = Recipe(
            loss=SoftmaxCrossEntropy(),
            optimizer=optax.sgd(0.1, momentum=0.9),
            schedule=optax.constant_schedule(0.1),
            **changed,
        )
        lowered, arguments = traced(options, devices, seen, recipe, height)
        program = compile_program(lowered)
        assert isinstance(program, Program), program
        first = first or program
        print(
            f"{name:62} {program.flops / images / 1e9:8.3f} GFLOP ({program.flops / first.flops - 1:+.2%})  "
            f"{program.nbytes / images / 1e6:8.2f} MB ({program.nbytes / first.nbytes - 1:+.2%})  an image",
            flush=True,
        )
        runs.append((name, lowered, arguments))
    if options.seconds:
        measure(runs, images)


def cut(seen: Preprocess, filter: str) -> RandomCut:
    return RandomCut(
        height=seen.height,
        width=seen.width,
        area=(0.08, 1.0),
        aspect=(3 / 4, 4 / 3),
        filter=filter,
        flip=Flip(horizontal=0.5),
    )


def traced(options: argparse.Namespace, devices, seen: Preprocess, recipe: Recipe, side: int):
    """Returns the lowered step, and the shapes of its arguments."""
    mesh = make_mesh(devices)
    batch_size = options.batch_per_device * len(devices)
    model = create_model(
        options.model,
        num_classes=1000,
        dtype=jnp.dtype(options.dtype),
        preprocess=seen,
        norm_group_size=options.batch_per_device,
    )
    step = make_train_step(model, seen, recipe, seed=0)
    shapes = jax.eval_shape(lambda: init_state(model, seen, recipe, 0))
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), shapes)

    def array(dtype: type, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=over_data(mesh))

    numbers = [array(kind) for kind in (np.int32, np.bool_, np.int32, np.int32, np.float32)]
    arguments = state, Batch(array(np.uint8, side, side, 3), *numbers)
    return jit_train_step(step, state, mesh).lower(*arguments), arguments


def measure(runs: list, images: int, rounds: int = 5) -> None:
    """Prints the least processor time of each step; they take turns, so that all see the same load."""
    random = np.random.default_rng(0)

    def filled(x: jax.ShapeDtypeStruct) -> jax.Array:
        high = 256 if x.dtype == np.uint8 else 2
        return jax.device_put(random.integers(0, high, x.shape).astype(x.dtype), x.sharding)

    seconds, steps = [[] for _ in runs], [lowered.compile() for _, lowered, _ in runs]
    for _ in range(rounds):
        for took, step, (_, _, arguments) in zip(seconds, steps, runs, strict=True):
            state, batch = jax.tree.map(filled, arguments)
            jax.block_until_ready((state, batch))
            start = time.process_time()
            jax.block_until_ready(step(state, batch))
            took.append(time.process_time() - start)
    for took, (name, _, _) in zip(seconds, runs, strict=True):
        print(
            f"{name:62} {1e3 * min(took) / images:8.3f} ms of processor time ({min(took) / min(seconds[0]) - 1:+.1%})"
        )


if __name__ == "__main__":
    main()
