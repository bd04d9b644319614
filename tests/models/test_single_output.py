"""Two classes in one output: the logits are 0 and the output, and all that follows is as with two."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets
from jaxnets import UserError, create_model
from jaxnets.export.timm_layout import timm_arrays
from jaxnets.models.forward import forward
from jaxnets.models.layers import Head
from jaxnets.pretrained.convert import adapt
from tests import tiny

FEATURES = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


def made(family: str, single_output: bool = True) -> jaxnets.Classifier:
    return tiny.classifier(family, classes=2, single_output=single_output, engine_name="jax")


def test_the_softmax_of_its_logits_is_the_sigmoid_of_the_one_output():
    head = Head(2, single_output=True)
    variables = head.init(jax.random.key(0), FEATURES)
    assert variables["params"]["kernel"].shape == (7, 1)
    variables["params"]["bias"] = jnp.array([0.3])
    logits = head.apply(variables, FEATURES)
    z = FEATURES @ variables["params"]["kernel"][:, 0] + 0.3
    np.testing.assert_allclose(jax.nn.softmax(logits)[:, 1], jax.nn.sigmoid(z), rtol=1e-5)
    label = np.array([0, 1, 1, 0, 1], np.int32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    np.testing.assert_allclose(loss, optax.sigmoid_binary_cross_entropy(z, label.astype(np.float32)), rtol=1e-5)


@pytest.mark.parametrize("single_output", [True, False], ids=["of one output", "of two"])
def test_weights_of_two_classes_answer_alike_in_one_output_and_in_two(single_output):
    here = made("cifar", single_output)
    there = made("cifar", not single_output)
    variables = adapt(here.variables, there.model, 3)
    assert variables["params"]["head"]["kernel"].shape == there.variables["params"]["head"]["kernel"].shape
    images = np.stack([here.preprocess.fit(image) for image in tiny.images()])
    found, expected = (
        jax.nn.softmax(forward(of.model, of.preprocess, weights, images))
        for of, weights in ((there, variables), (here, here.variables))
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_its_onnx_graph_answers_as_it_does(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = made("cifar")
    graph = replace(ours, engine_name="onnx", engine_folder=tmp_path)
    expected = ours.predict(tiny.images())
    assert graph.engine.name == "onnx"
    assert np.ptp(expected[:, 1]) > 1e-3
    np.testing.assert_allclose(graph.predict(tiny.images()), expected, atol=1e-4)


def test_its_export_to_timm_has_two_outputs_of_which_the_first_is_nothing():
    ours = made("lite")
    arrays = timm_arrays(ours)
    expected = np.pad(ours.variables["params"]["head"]["kernel"], ((0, 0), (1, 0))).T
    np.testing.assert_array_equal(arrays["classifier.weight"], expected)
    assert arrays["classifier.bias"].shape == (2,)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_it_is_refused_for_any_other_number_of_classes(name):
    with pytest.raises(UserError, match="is for two classes, and there are 3"):
        create_model(name, num_classes=3, single_output=True)
