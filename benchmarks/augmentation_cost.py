"""How much of a training step the augmentation on the device is: operations and bytes by the compiler's account.

    python benchmarks/augmentation_cost.py --topology v5e:2x4 [--model resnet50] [--size 224] [--batch-per-device 128]

Three steps are compiled and none is run: on images of the model's size with nothing cut out; with a random resized crop
and mirroring from the default canvas; and with a random one of two filters besides. What they access and compute more
than the first is the augmentation's share. Needs libtpu (`pip install 'jax[tpu]'`), or `--topology here`.
"""

import argparse

from jaxnets.plan.topology import describe, prepare_environment

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
from jaxnets.recipe.augment.random_resized_crop import RandomCut  # noqa: E402
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy  # noqa: E402
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
    options = parser.parse_args()
    devices = describe(options.topology).devices
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
    cuts = {
        f"nothing is cut, {options.size}×{options.size}": (None, seen.height),
        f"random resized crop, bicubic, from {canvas.height}×{canvas.width}": (cut(seen, "bicubic"), canvas.height),
        f"the same, a random filter, from {canvas.height}×{canvas.width}": (cut(seen, "random"), canvas.height),
    }
    first = None
    print(f"{options.model}, {options.topology}, {options.batch_per_device} images a device, jax {jax.__version__}")
    for name, (each, side) in cuts.items():
        program = compiled(options, devices, seen, each, side)
        first = first or program
        images = options.batch_per_device
        print(
            f"{name:55} {program.flops / images / 1e9:8.3f} GFLOP ({program.flops / first.flops - 1:+.2%})  "
            f"{program.nbytes / images / 1e6:8.2f} MB ({program.nbytes / first.nbytes - 1:+.2%})  an image"
        )


def cut(seen: Preprocess, filter: str) -> RandomCut:
    return RandomCut(
        height=seen.height,
        width=seen.width,
        area=(0.08, 1.0),
        aspect=(3 / 4, 4 / 3),
        filter=filter,
        flip=Flip(horizontal=0.5),
    )


def compiled(options: argparse.Namespace, devices, seen: Preprocess, each: RandomCut | None, side: int) -> Program:
    mesh = make_mesh(devices)
    batch_size = options.batch_per_device * len(devices)
    model = create_model(
        options.model,
        num_classes=1000,
        dtype=jnp.bfloat16,
        preprocess=seen,
        norm_group_size=options.batch_per_device,
    )
    recipe = Recipe(
        loss=SoftmaxCrossEntropy(),
        optimizer=optax.sgd(0.1, momentum=0.9),
        schedule=optax.constant_schedule(0.1),
        cut=each,
    )
    step = make_train_step(model, seen, recipe, seed=0)
    shapes = jax.eval_shape(lambda: init_state(model, seen, recipe, 0))
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), shapes)

    def array(dtype: type, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=over_data(mesh))

    numbers = [array(kind) for kind in (np.int32, np.bool_, np.int32, np.int32, np.float32)]
    program = compile_program(
        jit_train_step(step, state, mesh).lower(state, Batch(array(np.uint8, side, side, 3), *numbers))
    )
    assert isinstance(program, Program), program
    return program


if __name__ == "__main__":
    main()
