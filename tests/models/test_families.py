"""What every registered family promises, by networks of each kind; a new family is tested here without being named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import create_model, list_models
from jaxnets.explain.stage import logits_and_output
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.describe import parameters
from jaxnets.models.registry import FAMILIES, MODELS, family_of, find_family
from tests import tiny

CLASSES = 3
SIZE = (1, tiny.SEEN.height, tiny.SEEN.width, tiny.SEEN.channels)


def examples():
    """The small networks of each kind, and for a family that has none its smallest model."""
    found = {kind: create_model(name, num_classes=CLASSES, **fields) for kind, (name, fields) in tiny.FAMILIES.items()}
    for family in FAMILIES:
        if not any(isinstance(model, family.network) for model in found.values()):
            name = min(family.entries, key=lambda name: parameters(create_model(name)))
            found[name] = create_model(name, num_classes=CLASSES)
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request):
    """A network and the shapes of its variables."""
    model = EXAMPLES[request.param]
    with plain_convolutions():
        return model, jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(SIZE)))


def traced(model, variables, method="__call__"):
    with plain_convolutions():
        return jax.eval_shape(lambda v, x: model.apply(v, x, method=method), variables, jnp.zeros(SIZE, model.dtype))


def test_the_structure_names_every_layer_once(example):
    model, variables = example
    for coarse in (False, True):
        groups = family_of(model).structure(model).groups(coarse=coarse)
        assert sorted(layer for group in groups for layer in group) == sorted(variables["params"])


def test_the_stem_sees_the_image_and_the_head_the_embedding(example):
    model, variables = example
    structure, params = family_of(model).structure(model), variables["params"]
    assert params[structure.stem[0]]["kernel"].shape[2] == SIZE[3]
    embedding = traced(model, variables, "embed")
    assert embedding.shape == (1, params[structure.head]["kernel"].shape[0])
    assert set(params[structure.head]) == {"kernel", "bias"}


def test_logits_and_embedding_are_float32_in_bfloat16_too(example):
    model, variables = example
    rough = model.clone(dtype=jnp.bfloat16)
    for method in ("__call__", "embed"):
        assert traced(rough, variables, method).dtype == jnp.float32
    assert traced(rough, variables).shape == (1, CLASSES)


def test_the_features_are_those_of_the_stem_and_the_stages(example):
    model, variables = example
    features = traced(model, variables, "features")
    assert {"stem", *family_of(model).structure(model).stages} <= set(features)
    assert all(x.ndim == 4 for x in features.values())


def test_grad_cam_finds_what_each_stage_ends_with(example):
    model, variables = example
    features = traced(model, variables, "features")
    images = jnp.zeros(SIZE, jnp.uint8)
    for stage, layer in family_of(model).structure(model).stage_ends().items():
        with plain_convolutions():
            _, output = jax.eval_shape(
                lambda v, x, layer=layer: logits_and_output(model, tiny.SEEN, v, x, layer, None), variables, images
            )
        assert output.ndim == 4
        assert output.shape[3] == features[stage].shape[3]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_logits_are_the_head_of_the_embedding(kind):
    model = EXAMPLES[kind]
    variables = tiny.live(model, tiny.SEEN)
    x = np.random.default_rng(0).normal(size=(2, tiny.SEEN.height, tiny.SEEN.width, 3)).astype(np.float32)
    with plain_convolutions():
        lowered = jax.jit(lambda v, x: model.apply(v, x, False, method="outputs")).lower(variables, x)
    outputs = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(variables, x)
    head = variables["params"][family_of(model).structure(model).head]
    np.testing.assert_allclose(outputs.logits, outputs.embedding @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-4)
    assert np.abs(outputs.logits[0] - outputs.logits[1]).max() > 0


@pytest.mark.parametrize(
    ("name", "fine", "coarse"),
    [
        ("resnet50", 18, 6),
        ("resnetv2_50", 18, 6),
        ("efficientnet_b0", 18, 9),
        ("resnet20_cifar", 11, 5),
        ("convnext_tiny", 20, 6),
    ],
)
def test_the_groups_are_those_of_timms_layer_wise_decay(name, fine, coarse):
    model = create_model(name)
    structure = family_of(model).structure(model)
    assert len(structure.groups()) == fine
    assert len(structure.groups(coarse=True)) == coarse
    assert structure.groups()[-1][-1] == "head"


# What timm 1.0's param_groups_layer_decay puts together, by the beginning of its names, from the image to the head.
TIMM_GROUPS = {
    "resnet50": (
        *("conv1 bn1", "layer1.0", "layer1.1", "layer1.2", "layer2.0", "layer2.1", "layer2.2", "layer2.3", "layer3.0"),
        *("layer3.1", "layer3.2", "layer3.3", "layer3.4", "layer3.5", "layer4.0", "layer4.1", "layer4.2", "fc"),
    ),
    "efficientnet_b0": (
        *("conv_stem bn1", "blocks.0.0", "blocks.1.0", "blocks.1.1", "blocks.2.0", "blocks.2.1", "blocks.3.0"),
        *("blocks.3.1", "blocks.3.2", "blocks.4.0", "blocks.4.1", "blocks.4.2", "blocks.5.0", "blocks.5.1"),
        *("blocks.5.2", "blocks.5.3", "blocks.6.0 conv_head bn2", "classifier"),
    ),
    "deit3_small_patch16_224": (
        "cls_token pos_embed patch_embed",
        *(f"blocks.{block}" for block in range(11)),
        *("blocks.11 norm", "head"),
    ),
    "convnextv2_nano": (
        *("stem", "stages.0.blocks.0", "stages.0.blocks.1", "stages.1.downsample stages.1.blocks.0"),
        *("stages.1.blocks.1", "stages.2.downsample stages.2.blocks.0"),
        *(f"stages.2.blocks.{block}" for block in range(1, 8)),
        *("stages.3.downsample stages.3.blocks.0", "stages.3.blocks.1", "head"),
    ),
}


@pytest.mark.parametrize("name", TIMM_GROUPS)
def test_each_layer_is_in_the_group_that_timm_has_it_in(name):
    model = create_model(name)
    family = family_of(model)
    with plain_convolutions():
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3))))
    paths = {
        tuple(key.key for key in path[:-1]) for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])
    }
    number = {layer: i for i, group in enumerate(family.structure(model).groups()) for layer in group}
    for path in paths:
        theirs = family.layouts[0].module_key(model, path)
        group = TIMM_GROUPS[name][number[path[0]]]
        assert any(f"{theirs}.".startswith(f"{start}.") for start in group.split()), theirs
    assert set(number.values()) == set(range(len(TIMM_GROUPS[name])))


def test_what_follows_the_last_block_shares_its_group():
    for name, layers in (("efficientnet_b0", ("top_conv", "top_norm")), ("resnetv2_50", ("last_norm",))):
        model = create_model(name)
        *_, last, _ = family_of(model).structure(model).groups()
        assert last[1:] == layers


def test_a_name_belongs_to_one_family():
    assert len(list_models()) == sum(len(family.entries) for family in FAMILIES)
    for name in list_models():
        assert isinstance(create_model(name), find_family(name).network)


def test_published_files_are_of_registered_models_with_a_preprocessing():
    published = [(digest, file) for family in FAMILIES for digest, file in family.published.items()]
    assert len({digest for digest, _ in published}) == len(published)
    for digest, file in published:
        assert len(digest) == 8
        assert int(digest, 16) >= 0
        assert MODELS[file.model].preprocess is not None


@pytest.mark.parametrize(
    ("digest", "model", "pixels", "resized"),
    [("0676ba61", "resnet50", 224, 256), ("11ad3fa6", "resnet50", 224, 232), ("c27df63c", "efficientnet_b1", 240, 255)],
)
def test_torchvisions_files_of_either_recipe_have_their_own_size(digest, model, pixels, resized):
    file = find_family(model).published[digest]
    assert file.model == model
    assert file.preprocess.resized(resized, 2 * resized) == (resized, 2 * resized)
    assert (file.preprocess.height, file.preprocess.interpolation) == (pixels, "bilinear")
