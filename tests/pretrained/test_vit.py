"""What the files of vision transformers say of their model, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxnets
from jaxnets import UserError
from jaxnets.export.timm_layout import NotInTimm, architecture_of
from jaxnets.models.vit import FAMILY
from jaxnets.pretrained import hub_config
from jaxnets.pretrained.convert import to_arrays
from jaxnets.pretrained.load import open_pretrained
from tests import tiny

LAYOUTS = {layout.name: layout for layout in FAMILY.layouts}
TINY = jaxnets.create_model("vit_tiny_patch16_224")


def held(patch: int, positions: int, **more) -> dict[str, np.ndarray]:
    """The arrays of a timm file that say what its grid is."""
    stem = {"patch_embed.proj.weight": np.zeros((192, 3, patch, patch)), "pos_embed": np.zeros((1, positions, 192))}
    return stem | more


@pytest.mark.parametrize(("positions", "grid"), [(197, [14, 14]), (577, [24, 24]), (17, [4, 4]), (2, [1, 1])])
def test_the_grid_is_that_of_the_files_position_embeddings(positions, grid):
    assert LAYOUTS["timm"].fields_of(TINY, held(16, positions)) == {"grid": grid}


def test_a_grid_that_is_no_square_is_the_models_own_or_refused():
    model = TINY.clone(grid=(3, 4))
    assert LAYOUTS["timm"].fields_of(model, held(16, 13)) == {"grid": [3, 4]}
    for positions in (13, 196, 1):
        with pytest.raises(UserError, match=rf"has {positions} position embeddings.*cannot be interpolated"):
            LAYOUTS["timm"].fields_of(TINY, held(16, positions))


def test_an_average_that_is_normalised_after_pooling_is_recognised():
    found = LAYOUTS["timm"].fields_of(TINY, held(16, 197, **{"fc_norm.weight": np.zeros(192)}))
    assert found == {"grid": [14, 14], "pool": "average", "norm_after_pool": True}


def test_weights_of_another_patch_size_are_refused_by_that(tmp_path):
    arrays = {key: array.astype(np.float32) for key, array in held(32, 50).items()}
    save_file(arrays, tmp_path / "small.safetensors")
    message = r"small\.safetensors has patches of 32×32 pixels, and this model's are of 16×16: load it as the model of"
    with pytest.raises(UserError, match=message):
        open_pretrained("vit_tiny_patch16_224", jaxnets.run.resolve.resolve(tmp_path / "small.safetensors"))


@pytest.mark.parametrize(
    ("layout", "written", "today"),
    [
        (
            "torchvision",
            "encoder.layers.encoder_layer_3.mlp.linear_2.weight",
            "encoder.layers.encoder_layer_3.mlp.3.weight",
        ),
        (
            "transformers",
            "vit.layers.11.attention.k_proj.bias",
            "vit.encoder.layer.11.attention.attention.key.bias",
        ),
        ("transformers", "vit.layers.0.mlp.fc1.weight", "vit.encoder.layer.0.intermediate.dense.weight"),
        ("transformers", "vit.layers.0.layernorm_before.bias", "vit.encoder.layer.0.layernorm_before.bias"),
        ("transformers", "classifier.weight", "classifier.weight"),
    ],
)
def test_keys_of_another_age_are_those_of_today(layout, written, today):
    assert LAYOUTS[layout].renamed(written) == today


def test_transformers_has_queries_keys_and_values_in_three_layers():
    name, fields = tiny.FAMILIES["vit"]
    model = jaxnets.create_model(name, num_classes=3, preprocess=tiny.SEEN, **fields)
    variables = tiny.live(model, tiny.SEEN)
    arrays = to_arrays(variables, LAYOUTS["transformers"], model, 3)
    qkv = variables["params"]["stage2_block1"]["attention"]["qkv"]
    for number, part in enumerate(("query", "key", "value")):
        of_part = slice(16 * number, 16 * (number + 1))
        key = f"vit.encoder.layer.1.attention.attention.{part}"
        np.testing.assert_array_equal(arrays[f"{key}.weight"].T, qkv["kernel"][:, of_part])
        np.testing.assert_array_equal(arrays[f"{key}.bias"], qkv["bias"][of_part])


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ({"global_pool": "token"}, {}),
        ({"global_pool": "avg"}, {"pool": "average", "norm_after_pool": True}),
        (
            {"global_pool": "avg", "model_args": {"fc_norm": False, "img_size": 96}},
            {"pool": "average", "norm_after_pool": False},
        ),
        (
            {"model_args": {"no_embed_class": True, "init_values": 1e-5}},
            {"token_position": False, "layer_scale": 1e-5},
        ),
    ],
)
def test_timms_arguments_are_fields_of_the_network(arguments, fields):
    found = hub_config.network({"architecture": "vit_tiny_patch16_224", **arguments})
    assert found.name == "vit_tiny_patch16_224"
    assert found.fields == fields


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_pool": "map"}, "pools by 'map'"),
        ({"model_args": {"reg_tokens": 4}}, "with reg_tokens 4, which is another network"),
        ({"model_args": {"embed_dim": 256}}, "with embed_dim 256"),
    ],
)
def test_arguments_of_another_network_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        hub_config.network({"architecture": "vit_tiny_patch16_224", **arguments})


# As google/vit-base-patch16-224 and WinKawaks/vit-tiny-patch16-224 have them, and others.
@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"layer_norm_eps": 1e-12}, "vit_base_patch16_224"),
        ({"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3}, "vit_tiny_patch16_224"),
        ({"patch_size": 32, "image_size": 384}, "vit_base_patch32_384"),
        ({"patch_size": [16, 16], "image_size": [224, 224]}, "vit_base_patch16_224"),
    ],
)
def test_transformers_configurations_are_of_registered_models(config, name):
    found = hub_config.network({"model_type": "vit", "architectures": ["ViTForImageClassification"], **config})
    assert found.name == name
    assert found.fields == {"layer_norm_epsilon": 1e-12}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_act": "relu"}, "has hidden_act 'relu'"),
        ({"num_hidden_layers": 7}, "of other depths or widths"),
        ({"patch_size": 8}, "of other depths or widths"),
        ({"qkv_bias": False}, "has qkv_bias False"),
    ],
)
def test_other_configurations_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        hub_config.network({"model_type": "vit", **config})


def test_transformers_squeezes_its_images():
    processor = json.loads('{"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}')
    found = hub_config.preprocess({"model_type": "vit"}, processor)
    assert (found.fitting, found.crop_fraction, found.interpolation) == ("squeeze", 1.0, "bilinear")
    assert found.mean == pytest.approx((0.5, 0.5, 0.5))


def of_size(height: int, width: int, **fields):
    """A network for images of a size."""
    seen = replace(tiny.SEEN, height=height, width=width)
    return jaxnets.create_model("vit_tiny_patch16_224", preprocess=seen, **fields)


@pytest.mark.parametrize(
    ("height", "width", "grid", "expressible"),
    [
        (64, 64, (4, 4), True),
        (96, 96, (4, 4), True),  # resampled there as here
        (64, 96, (4, 6), True),
        (96, 96, (4, 6), False),  # no square to resample
        (32, 128, (4, 4), False),  # sixteen of another order
    ],
)
def test_timm_is_told_of_a_grid_that_it_reads_alike(height, width, grid, expressible):
    model = of_size(height, width, grid=grid)
    if expressible:
        assert architecture_of("vit_tiny_patch16_224", model).arguments == {}
        kept = held(16, 1 + math.prod(grid))
        assert LAYOUTS["timm"].fields_of(model.clone(grid=(14, 14)), kept) == {"grid": list(grid)}
    else:
        with pytest.raises(NotInTimm, match="another network: this one has grid"):
            architecture_of("vit_tiny_patch16_224", model)


def test_timm_is_told_what_is_not_that_of_the_name():
    fields = {"pool": "average", "norm_after_pool": True, "layer_scale": 0.1, "token_position": False}
    found = architecture_of("vit_tiny_patch16_224", of_size(224, 224, **fields))
    assert found.arguments == {"global_pool": "avg", "fc_norm": True, "init_values": 0.1, "no_embed_class": True}
    assert hub_config.network({"architecture": found.name, "model_args": found.arguments}).fields == fields
    with pytest.raises(NotInTimm, match="layer_norm_epsilon"):
        architecture_of("vit_tiny_patch16_224", of_size(224, 224, layer_norm_epsilon=1e-5))
