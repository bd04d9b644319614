"""What a repository's config.json says of its network, its labels and its preprocessing."""

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.hub_config import Recognised, activation, labels, network, preprocess
from jaxnets.pretrained.imagenet import class_names

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# As the libraries write them, less what nothing here reads.
TIMM_RESNET50 = {
    "architecture": "resnet50",
    "num_classes": 1000,
    "num_features": 2048,
    "global_pool": "avg",
    "model_args": {"in_chans": 3, "num_classes": 1000, "global_pool": "avg"},
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "test_crop_pct": 1.0,
        "crop_mode": "center",
        "mean": MEAN,
        "std": STD,
        "num_classes": 1000,
    },
}
RESNET50 = {
    "depths": [3, 4, 6, 3],
    "downsample_in_bottleneck": False,
    "downsample_in_first_stage": False,
    "embedding_size": 64,
    "hidden_act": "relu",
    "hidden_sizes": [256, 512, 1024, 2048],
    "layer_type": "bottleneck",
    "model_type": "resnet",
    "num_channels": 3,
}
CONVNEXT_PROCESSOR = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_processor_type": "ConvNextImageProcessor",
    "image_std": STD,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}
EFFICIENTNET_B0 = {
    "batch_norm_eps": 0.001,
    "depth_coefficient": 1.0,
    "depth_divisor": 8,
    "depthwise_padding": [],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
    "hidden_act": "swish",
    "image_size": 224,
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "model_type": "efficientnet",
    "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "num_channels": 3,
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "pooling_type": "mean",
    "squeeze_expansion_ratio": 0.25,
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "width_coefficient": 1.0,
}
EFFICIENTNET_PROCESSOR = {
    "crop_size": {"height": 289, "width": 289},
    "do_center_crop": False,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_processor_type": "EfficientNetImageProcessor",
    "image_std": [0.47853944, 0.4732864, 0.47434163],
    "include_top": True,
    "resample": 0,
    "rescale_factor": 0.00392156862745098,
    "rescale_offset": False,
    "size": {"height": 224, "width": 224},
}


def test_timm_names_its_architecture():
    assert network(TIMM_RESNET50) == Recognised(name="resnet50")


@pytest.mark.parametrize(
    ("key", "value"),
    [("global_pool", "max"), ("global_pool", ""), ("global_pool", "catavgmax"), ("output_stride", 16),
     ("act_layer", "silu"), ("norm_layer", "groupnorm"), ("aa_layer", "blurpool"), ("features_only", True),
     ("stem_type", "deep"), ("block_args", {"attn_layer": "se"}), ("cardinality", 32), ("something_new", 1)],
)  # fmt: skip
def test_a_network_that_timm_changed_is_refused_by_the_key(key, value):
    with pytest.raises(UserError, match=f"with {key} .* another network"):
        network({**TIMM_RESNET50, "model_args": {key: value}})


def test_a_pool_that_only_the_head_of_timms_configuration_names_is_refused():
    with pytest.raises(UserError, match="global_pool 'avgmax'"):
        network({**TIMM_RESNET50, "global_pool": "avgmax", "model_args": None})


@pytest.mark.parametrize(
    "arguments",
    [None, {}, {"drop_path_rate": 0.1, "in_chans": 1, "num_classes": 3}, {"output_stride": 32}, {"act_layer": None}],
)
def test_what_changes_no_answer_of_timms_networks_is_passed_over(arguments):
    assert network({**TIMM_RESNET50, "model_args": arguments}) == Recognised(name="resnet50")


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ({"bn_eps": 1e-3}, {"norm_epsilon": 1e-3}),
        ({"pad_type": "same"}, {"padding": "same"}),
        ({"act_layer": "swish"}, {"activation": "silu"}),
        ({"act_layer": "relu6"}, {"activation": "relu6"}),
    ],
)
def test_what_is_a_field_here_is_set(arguments, fields):
    config = {"architecture": "efficientnet_b0", "model_args": arguments}
    assert network(config) == Recognised(name="efficientnet_b0", fields=fields)


def test_a_resnet_has_an_epsilon_and_no_padding():
    assert network({"architecture": "resnet18", "model_args": {"bn_eps": 1e-3}}).fields == {"norm_epsilon": 1e-3}
    with pytest.raises(UserError, match="pad_type 'same'"):
        network({"architecture": "resnet18", "model_args": {"pad_type": "same"}})


@pytest.mark.parametrize(
    ("problem", "expected"),
    [(None, "softmax"), ("single_label_classification", "softmax"), ("multi_label_classification", "sigmoid"),
     ("regression", None)],
)  # fmt: skip
def test_the_kind_of_problem_says_what_the_outputs_mean(problem, expected):
    assert activation({**RESNET50, "problem_type": problem}) == expected


def test_an_unknown_kind_of_problem_is_refused():
    with pytest.raises(UserError, match="problem_type 'ranking'"):
        activation({**RESNET50, "problem_type": "ranking"})


def test_quantised_weights_are_refused():
    with pytest.raises(UserError, match="quantization_config"):
        network({**RESNET50, "quantization_config": {"quant_method": "bitsandbytes"}})


@pytest.mark.parametrize(
    ("name", "layer", "depths"),
    [
        ("resnet18", "basic", [2, 2, 2, 2]),
        ("resnet34", "basic", [3, 4, 6, 3]),
        ("resnet50", "bottleneck", [3, 4, 6, 3]),
        ("resnet101", "bottleneck", [3, 4, 23, 3]),
        ("resnet152", "bottleneck", [3, 8, 36, 3]),
    ],
)
def test_resnets_are_recognised_by_their_depths(name, layer, depths):
    widths = [64, 128, 256, 512] if layer == "basic" else [256, 512, 1024, 2048]
    config = {**RESNET50, "layer_type": layer, "depths": depths, "hidden_sizes": widths}
    assert network(config) == Recognised(name=name)


def test_other_depths_are_refused():
    with pytest.raises(UserError, match="resnet of other depths"):
        network({**RESNET50, "depths": [2, 2, 2, 2]})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"embedding_size": 32},
        {"downsample_in_bottleneck": True},
        {"downsample_in_first_stage": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_resnets_that_compute_something_else_are_refused_by_the_key(change):
    (key,) = change
    with pytest.raises(UserError, match=f"has {key} "):
        network({**RESNET50, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"batch_norm_eps": 1e-5},
        {"pooling_type": "max"},
        {"depth_divisor": 4},
        {"squeeze_expansion_ratio": 0.5},
        {"expand_ratios": [1, 4, 4, 4, 4, 4, 4]},
        {"depthwise_padding": [1]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_efficientnets_that_compute_something_else_are_refused_by_the_key(change):
    (key,) = change
    with pytest.raises(UserError, match=f"has {key} "):
        network({**EFFICIENTNET_B0, **change})


@pytest.mark.parametrize(
    ("name", "width", "depth", "pixels", "both_sides"),
    [
        ("tf_efficientnet_b0", 1.0, 1.0, 224, []),
        ("tf_efficientnet_b1", 1.0, 1.1, 240, [16]),
        ("tf_efficientnet_b2", 1.1, 1.2, 260, [5, 8, 16]),
        ("tf_efficientnet_b3", 1.2, 1.4, 300, [5, 18]),
        ("tf_efficientnet_b7", 2.0, 3.1, 600, [18]),
    ],
)
def test_efficientnets_are_recognised_by_their_scales_and_padding(name, width, depth, pixels, both_sides):
    scaled = {
        "width_coefficient": width,
        "depth_coefficient": depth,
        "image_size": pixels,
        "depthwise_padding": both_sides,
    }
    assert network({**EFFICIENTNET_B0, **scaled}) == Recognised(name=name)


def test_an_efficientnet_of_other_scales_is_refused():
    with pytest.raises(UserError, match="efficientnet of other depths or widths"):
        network({**EFFICIENTNET_B0, "depth_coefficient": 1.2})


@pytest.mark.parametrize("config", [{}, {"_class_name": "UNet"}, {"format": 1, "model": {"name": "resnet18"}}])
def test_what_describes_no_model_has_no_name(config):
    assert network(config) is None


def test_a_model_of_another_type_is_refused():
    with pytest.raises(UserError, match=r"of the type swin; known are .*efficientnet, resnet"):
        network({"model_type": "swin"})


# What transformers writes of facebook/convnext-tiny-224, less what nothing here reads.
CONVNEXT_TINY = {
    "depths": [3, 3, 9, 3],
    "hidden_act": "gelu",
    "hidden_sizes": [96, 192, 384, 768],
    "layer_norm_eps": 1e-12,
    "layer_scale_init_value": 1e-06,
    "model_type": "convnext",
    "num_stages": 4,
    "patch_size": 4,
}


@pytest.mark.parametrize(
    ("changed", "name", "fields"),
    [
        ({}, "convnext_tiny", {"last_norm_epsilon": 1e-12}),
        ({"layer_norm_eps": 1e-6}, "convnext_tiny", {"last_norm_epsilon": 1e-6}),
        ({"layer_scale_init_value": 0}, "convnext_tiny", {"last_norm_epsilon": 1e-12, "layer_scale": None}),
        ({"depths": [3, 3, 27, 3]}, "convnext_small", {"last_norm_epsilon": 1e-12}),
        ({"model_type": "convnextv2"}, "convnextv2_tiny", {"last_norm_epsilon": 1e-12}),
    ],
)
def test_convnexts_are_recognised_by_their_stages(changed, name, fields):
    found = network({**CONVNEXT_TINY, **changed})
    assert (found.name, dict(found.fields)) == (name, fields)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hidden_act": "relu"}, "has hidden_act 'relu'"),
        ({"patch_size": 2}, "has patch_size 2"),
        ({"depths": [3, 3, 3, 3]}, "convnext of other depths or widths"),
        ({"depths": [3, 3, 9]}, "does not say its network as timm or transformers do"),
    ],
)
def test_convnexts_that_are_other_networks_are_refused(changed, said):
    with pytest.raises(UserError, match=said):
        network({**CONVNEXT_TINY, **changed})


def test_what_timm_says_of_a_convnext_are_fields_here():
    found = network({"architecture": "convnext_tiny", "model_args": {"norm_eps": 1e-5, "conv_mlp": True}})
    assert found == Recognised(name="convnext_tiny", fields={"layer_norm_epsilon": 1e-5, "conv_mlp": True})


def test_a_thousand_classes_without_names_are_imagenets():
    assert labels(TIMM_RESNET50) == class_names()


def test_other_numbers_of_classes_have_no_names():
    assert labels({**TIMM_RESNET50, "num_classes": 21843}) is None


def test_labels_are_in_the_order_of_their_numbers():
    names = {str(i): f"name {i}" for i in reversed(range(12))}
    assert labels({**RESNET50, "id2label": names}) == tuple(f"name {i}" for i in range(12))


def test_timms_labels_are_described_where_they_can_be():
    named = {"label_names": ["n1", "n2"], "label_descriptions": {"n1": "a thing"}, "num_classes": 2}
    assert labels({**TIMM_RESNET50, **named}) == ("a thing", "n2")


def test_labels_with_gaps_are_refused():
    with pytest.raises(UserError, match="not numbered 0 to 1"):
        labels({"id2label": {"0": "a", "2": "b"}})


def test_timms_preprocessing_is_that_of_the_training():
    assert preprocess(TIMM_RESNET50, {}) == Preprocess(
        height=224,
        width=224,
        channels=3,
        mean=tuple(MEAN),
        std=tuple(STD),
        crop_fraction=0.95,
        interpolation="bicubic",
    )


def test_timms_older_files_have_one_level():
    found = preprocess({"architecture": "resnet18", "input_size": [3, 128, 160], "crop_pct": 0.9}, {})
    assert (found.height, found.width, found.crop_fraction, found.interpolation) == (128, 160, 0.9, "bicubic")


def test_the_older_files_of_resnets_are_read_as_the_newer():
    older = {key: CONVNEXT_PROCESSOR[key] for key in ("crop_pct", "image_mean", "image_std", "resample")}
    older |= {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224}
    found = preprocess(RESNET50, older)
    assert found == preprocess(RESNET50, CONVNEXT_PROCESSOR)
    assert (found.height, found.crop_fraction, found.interpolation) == (224, 0.875, "bicubic")
    np.testing.assert_allclose((found.mean, found.std), (MEAN, STD), rtol=1e-12)


def test_large_images_of_resnets_are_squeezed_and_not_cropped():
    found = preprocess(RESNET50, {**CONVNEXT_PROCESSOR, "size": {"shortest_edge": 384}})
    assert (found.height, found.crop_fraction, found.fitting) == (384, 1.0, "squeeze")


def test_efficientnets_images_are_squeezed_and_divided_twice():
    found = preprocess(EFFICIENTNET_B0, EFFICIENTNET_PROCESSOR)
    assert (found.height, found.width, found.crop_fraction) == (224, 224, 1.0)
    assert (found.interpolation, found.fitting) == ("nearest", "squeeze")
    np.testing.assert_allclose(found.mean, MEAN, rtol=1e-12)
    np.testing.assert_allclose(found.std, STD, rtol=1e-6)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("factor", "offset"), [(1 / 255, False), (1 / 127.5, True)])
def test_efficientnets_arithmetic_is_transformers(factor, offset, normalised, twice):
    processor = {
        **EFFICIENTNET_PROCESSOR,
        "do_normalize": normalised,
        "include_top": twice,
        "rescale_factor": factor,
        "rescale_offset": offset,
    }
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), np.uint8)
    deviation = np.array(EFFICIENTNET_PROCESSOR["image_std"])
    expected = pixels * factor - offset
    expected = (expected - np.array(MEAN)) / deviation if normalised else expected
    expected = expected / deviation if twice else expected
    found = preprocess(EFFICIENTNET_B0, processor)
    np.testing.assert_allclose(found.normalise(pixels, np.float32), expected, rtol=1e-5, atol=1e-5)


def test_efficientnets_crop_is_a_fraction():
    found = preprocess(
        EFFICIENTNET_B0, {**EFFICIENTNET_PROCESSOR, "size": {"height": 346, "width": 346}, "do_center_crop": True}
    )
    assert (found.height, found.resized(500, 300)) == (289, (346, 346))


@pytest.mark.parametrize(
    ("config", "processor"),
    [
        ({**TIMM_RESNET50, "pretrained_cfg": {"interpolation": "hamming"}}, {}),
        (RESNET50, {"image_processor_type": "SomeImageProcessor"}),
        (RESNET50, {**CONVNEXT_PROCESSOR, "resample": 4}),
        (EFFICIENTNET_B0, {**EFFICIENTNET_PROCESSOR, "do_center_crop": True}),  # 289 from 224
    ],
    ids=["hamming", "unknown", "box", "padded"],
)
def test_preprocessing_that_has_no_counterpart_is_left_out_with_a_warning(config, processor, caplog):
    assert preprocess(config, processor) is None
    assert "no counterpart" in caplog.text


def test_a_repository_that_says_nothing_has_no_preprocessing(caplog):
    assert preprocess(RESNET50, {}) is None
    assert not caplog.records


@pytest.mark.parametrize(
    "broken",
    [
        lambda: network({**RESNET50, "depths": 3}),
        lambda: labels({"id2label": {"a": "b"}}),
        lambda: labels({"architecture": "resnet18", "pretrained_cfg": "text"}),
        lambda: preprocess({"architecture": "resnet18", "pretrained_cfg": {"input_size": [224]}}, {}),
        lambda: preprocess({"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5]}}, {}),
        lambda: preprocess(RESNET50, {**CONVNEXT_PROCESSOR, "size": {"height": 224}}),
        lambda: preprocess(RESNET50, {**CONVNEXT_PROCESSOR, "image_std": ["a", "b", "c"]}),
        lambda: preprocess(EFFICIENTNET_B0, {**EFFICIENTNET_PROCESSOR, "rescale_factor": 0}),
    ],
)
def test_nonsense_is_a_message(broken):
    with pytest.raises(UserError, match="as timm or transformers do"):
        broken()
