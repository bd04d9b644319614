"""The maps of a stage's features, against the formulas of the papers and of pytorch-grad-cam 1.5.7 in NumPy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.explain import cam
from jaxnets.explain.cam import gradcam as gradcam_of
from jaxnets.explain.cam import make_cam
from jaxnets.explain.methods import METHODS
from jaxnets.explain.stage import logits_and_output, stages
from jaxnets.models.forward import forward
from tests.tiny import SEEN, classifier, images


def features_and_gradient(made, label, stage):
    """Returns what a stage gives of one image, and the gradient of a logit by it."""
    image = made.preprocess.fit(images(1)[0])[None]
    layer = stages(made.model)[stage]

    def logit(change):
        logits, output = logits_and_output(made.model, made.preprocess, made.variables, image, layer, change)
        return logits[0, label], output

    shape = jax.eval_shape(logit, None)[1]
    gradient, output = jax.grad(logit, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    return image, np.asarray(output[0], np.float64), np.asarray(gradient[0], np.float64)


def gradcam(a, g):
    return np.maximum((g.mean((0, 1)) * a).sum(-1), 0)


def gradcam_plus_plus(a, g):
    alpha = g**2 / (2 * g**2 + a.sum((0, 1)) * g**3 + 1e-30)
    weights = (np.where(g != 0, alpha, 0) * np.maximum(g, 0)).sum((0, 1))
    return np.maximum((weights * a).sum(-1), 0)


def layercam(a, g):
    return np.maximum((np.maximum(g, 0) * a).sum(-1), 0)


@pytest.mark.parametrize("formula", [gradcam, gradcam_plus_plus, layercam])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_map_is_that_of_the_formula(formula, stage):
    made = classifier("cifar", engine_name="jax")
    image, a, g = features_and_gradient(made, 3, stage)
    method = METHODS[formula.__name__.replace("_plus_plus", "++")]
    found = made.explainer.maps(method, image, np.array([3]), stage)[0]
    expected = formula(a, g)
    assert a.min() >= 0  # out of a ReLU, as the papers have it
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_the_weights_are_the_average_gradients_of_the_logit():
    """On a linear tail (global average, dense) the gradient by A_k is the head's weight over the number of places."""
    made = classifier("cifar", engine_name="jax")
    image, a, _ = features_and_gradient(made, 3, "stage2")
    found = made.explainer.maps(METHODS["gradcam"], image, np.array([3]))[0]
    weights = made.variables["params"]["head"]["kernel"][:, 3] / (a.shape[0] * a.shape[1])
    np.testing.assert_allclose(found, np.maximum(a @ weights, 0), rtol=1e-3, atol=1e-6)


def test_gradcam_plus_plus_is_finite_where_a_stage_ends_without_a_relu():
    """The published formula divides by 2 + g ΣA, which is 0 for some negative features."""
    from jaxnets.explain.cam import gradcam_plus_plus

    gradient = jnp.full((1, 2, 2, 1), 0.5)
    activation = jnp.full((1, 2, 2, 1), -1.0).at[0, 0, 0, 0].set(-1.0)  # 2 + 0.5 · (−4) = 0
    found = np.asarray(gradcam_plus_plus(activation, gradient))
    assert (found == 0).all()


def test_images_are_explained_some_at_a_time_as_they_are_together(monkeypatch):
    made = classifier("lite", engine_name="jax")
    fitted = np.stack([made.preprocess.fit(image) for image in images(4)])
    labels = np.arange(4, dtype=np.int32)
    found = {}
    for count in (4, 2):
        monkeypatch.setattr(cam, "_PIXELS", count * SEEN.height * SEEN.width)
        assert cam.at_once(made.model, fitted) == count
        assert cam.at_once(made.model, fitted[:3]) == (3 if count == 4 else 1)
        explain = make_cam(gradcam_of, made.model, made.preprocess, stages(made.model)["stage2"])
        found[count] = np.asarray(jax.jit(explain)(made.variables, fitted, labels))
    assert found[4].max() > 0
    np.testing.assert_allclose(found[2], found[4], rtol=1e-4, atol=1e-6 * found[4].max())
    assert cam.at_once(classifier("cifar").model, fitted) == 4


def test_no_gradient_of_weights_or_of_earlier_layers_is_computed():
    """Back from the logits to the stage takes what going there took, so that all is less than two passes forward."""
    made = classifier("cifar", engine_name="jax")
    fitted = np.stack([made.preprocess.fit(image) for image in images(2)])

    def operations(function, *arguments):
        return jax.jit(function).lower(made.variables, fitted, *arguments).compile().cost_analysis()["flops"]

    once = operations(lambda variables, images: forward(made.model, made.preprocess, variables, images))
    for stage, least, most in (("stage1", 1.2, 2.1), ("stage2", 1.0, 1.1)):
        explain = make_cam(gradcam_of, made.model, made.preprocess, stages(made.model)[stage])
        assert least < operations(explain, np.zeros(2, np.int32)) / once < most, stage


@pytest.mark.parametrize("method", ["gradcam", "layercam", "integrated_gradients"])
def test_bfloat16_explains_as_float32_does(method):
    made = classifier("cifar", engine_name="jax", preprocess=replace(SEEN, crop_fraction=1.0))
    half = replace(made, model=made.model.clone(dtype=jnp.bfloat16))
    fitted = made.preprocess.fit(images(1)[0])[None]
    maps = [each.explainer.maps(METHODS[method], fitted, np.array([1]))[0] for each in (made, half)]
    assert maps[1].dtype == np.float32
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.98


@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients", "smoothgrad", "occlusion"])
def test_a_single_output_explains_both_of_its_classes(method):
    """The first class's logit is 0 whatever the image; what speaks for it is what speaks against the other."""
    made = classifier("cifar", 2, single_output=True, engine_name="jax")
    first, second = made.explain_batch(images(1) * 2, [0, 1], method=method)
    assert np.abs(first.heat).max() > 0 or np.abs(second.heat).max() > 0
    if METHODS[method].signed:
        np.testing.assert_allclose(first.heat, -second.heat, atol=1e-4)
    if method == "smoothgrad":
        np.testing.assert_allclose(first.heat, second.heat, atol=1e-4)


def test_each_of_several_labels_has_its_own_map():
    made = classifier("cifar", activation="sigmoid", several_labels=True, thresholds=(0.0,) * 5, engine_name="jax")
    found = made.explain_answer(images(1)[0], method="layercam")
    assert len({each.label for each in found}) == len(found) == 4
    assert np.abs(found[0].heat - found[1].heat).max() > 0.01
