"""What the TPU's own compiler says of small networks; it needs libtpu (pip install 'jax[tpu]') and no TPU."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets import create_model
from jaxnets.data.batch import Batch
from jaxnets.errors import UserError
from jaxnets.models.efficientnet.network import Stage as MBConvStage
from jaxnets.models.resnet.network import Stage
from jaxnets.plan.compiled import Program, compile_program
from jaxnets.plan.topology import Topology, describe, prepare_environment
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
from jaxnets.recipe.recipe import Recipe
from jaxnets.train.feed import jit_train_step
from jaxnets.train.mesh import make_mesh, over_data, replicated
from jaxnets.train.step import init_state, make_train_step

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")

SIZE, BATCH = 32, 1024
STAGES = (Stage(blocks=1, features=32, stride=1), Stage(blocks=1, features=64, stride=2))
MBCONVS = tuple(
    MBConvStage(kernel=3, repeats=1, stride=stride, expand=6, features=features, squeeze=0.25)
    for stride, features in ((1, 16), (2, 24))
)


@pytest.fixture(scope="module")
def v5e() -> Topology:
    prepare_environment()
    return describe("v5e:2x4")


def compiled(topology: Topology, name="resnet50", stages=STAGES, **fields) -> Program:
    """The training step of a network of two blocks."""
    mesh = make_mesh(topology.devices)
    p = Preprocess(height=SIZE, width=SIZE, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    model = create_model(name, stages=stages, num_classes=10, dtype=jnp.bfloat16, preprocess=p, **fields)
    recipe = Recipe(
        loss=SoftmaxCrossEntropy(), optimizer=optax.sgd(0.1, momentum=0.9), schedule=optax.constant_schedule(0.1)
    )
    step = make_train_step(model, p, recipe, seed=0)
    shapes = jax.eval_shape(lambda: init_state(model, p, recipe, 0))
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), shapes)

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct((BATCH, *shape), dtype, sharding=over_data(mesh))

    numbers = [array(kind) for kind in (np.int32, np.bool_, np.int32, np.int32, np.float32)]
    batch = Batch(array(np.uint8, SIZE, SIZE, 3), *numbers)
    program = compile_program(jit_train_step(step, state, mesh).lower(state, batch))
    assert isinstance(program, Program)
    return program


@pytest.fixture(scope="module")
def grouped(v5e) -> Program:
    return compiled(v5e, norm_group_size=BATCH // 8)


def test_groups_of_batch_norm_need_no_collectives_of_their_own(v5e, grouped):
    assert grouped.all_reduces <= 4
    assert compiled(v5e).all_reduces > 4  # over the whole batch every norm needs its own, forward and backward


def test_a_step_moves_no_more_than_it_did(grouped):
    # libtpu 0.0.42.1: 1.194 MB for each of a device's images, 23.0 MB of memory.
    assert grouped.nbytes / (BATCH // 8) < 1.25e6
    assert grouped.peak < 25e6


def test_a_step_of_an_efficientnet_moves_no_more_than_it_did(v5e):
    # libtpu 0.0.42.1: 3.365 MB for each of a device's images, where the plain gradient moved 3.664.
    program = compiled(v5e, "efficientnet_b0", MBCONVS, norm_group_size=BATCH // 8)
    assert program.all_reduces <= 4
    assert program.nbytes / (BATCH // 8) < 3.5e6


def test_a_topology_that_is_none_is_one_message(v5e):
    with pytest.raises(UserError, match=r"no topology 'v5e:2x5' \(did you mean 'v5e:2x4'\?\)"):
        describe("v5e:2x5")


@pytest.mark.parametrize(
    ("name", "devices", "cores"),
    [
        ("v3:2x2", 8, 2),
        ("v3-8", 8, 2),
        ("v4:2x2x1", 4, 1),
        ("v4-8", 4, 1),
        ("v5p:2x2x1", 4, 1),
        ("v5e:16x16", 256, 1),
        ("v6e:2x4", 8, 1),
        ("tpu7x:2x2x1", 8, 2),
    ],
)
def test_a_topology_has_the_devices_that_jax_makes_a_mesh_of(v5e, name, devices, cores):
    topology = describe(name)
    assert (len(topology.devices), topology.cores) == (devices, cores)
    assert make_mesh(topology.devices).size == devices


def test_what_is_compiled_is_the_tpu_s_form_of_a_convolution(v5e):
    from jaxnets.models.conv import conv2d

    place = replicated(make_mesh(v5e.devices))
    x = jax.ShapeDtypeStruct((8, 8, 8, 32), jnp.float32, sharding=place)
    kernel = jax.ShapeDtypeStruct((3, 3, 32, 32), jnp.float32, sharding=place)
    step = jax.jit(lambda x, k: conv2d(x, k, stride=(1, 1), padding=((1, 1), (1, 1))))
    text = step.lower(x, kernel).as_text()
    assert text.count("stablehlo.convolution") == 1
    assert "dot_general" not in text  # a CPU gets Winograd's sixteen products


def test_the_command_prints_one_json_object(run, tmp_path):
    config = tmp_path / "small.py"
    config.write_text(
        "from jaxnets.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.data.update(dict(num_classes=10, train_examples=1000, image_size=8, channels=1))\n"
        "    return config\n"
    )
    done = run("jaxnets.plan", "--config", config, "--topology", "v5e:2x4", "--no-search", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["train"]["fits"]
    assert report["train"]["images_per_second_bound"] > 0
