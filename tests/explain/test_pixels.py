"""Explanations that ask the whole network: integrated gradients, SmoothGrad, occlusion, SHAP."""

import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets import UserError
from jaxnets.explain.gradients import make_integrated_gradients, make_smoothgrad
from jaxnets.explain.methods import METHODS
from jaxnets.explain.occlusion import make_occlusion
from jaxnets.preprocess import Preprocess
from tests.tiny import classifier, images

OF_ANY_NETWORK = [name for name, method in METHODS.items() if method.compiled and name != "rollout"]  # needs attention
GREY = Preprocess(height=6, width=8, channels=1, mean=(0.3,), std=(0.5,))


class Linear(nn.Module):
    """Logits that are weighted sums of the pixels: of such a model every explanation is known."""

    dtype: type = jnp.float32
    single_output: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        return x.reshape(len(x), -1) @ self.param("kernel", nn.initializers.zeros, (x[0].size, 3))


@pytest.fixture(scope="module")
def linear():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(48, 3)).astype(np.float32)
    pixels = random.integers(0, 256, (2, 6, 8, 1), np.uint8)
    return SimpleNamespace(
        model=Linear(),
        variables={"params": {"kernel": kernel}},
        images=pixels,
        weights=kernel.reshape(6, 8, 3),
        x=((pixels[..., 0] / 255 - 0.3) / 0.5),
        labels=np.array([2, 0], np.int32),
    )


def explained(make, linear, **options):
    return np.asarray(make(linear.model, GREY, **options)(linear.variables, linear.images, linear.labels))


def test_integrated_gradients_of_a_linear_model_are_weight_times_distance_from_black(linear):
    black = -0.3 / 0.5
    expected = [(linear.x[i] - black) * linear.weights[..., label] for i, label in enumerate(linear.labels)]
    np.testing.assert_allclose(explained(make_integrated_gradients, linear, steps=5), expected, rtol=1e-4, atol=1e-5)


def test_smoothgrad_of_a_linear_model_is_the_size_of_its_weights(linear):
    expected = [np.abs(linear.weights[..., label]) for label in linear.labels]
    np.testing.assert_allclose(explained(make_smoothgrad, linear, samples=6), expected, rtol=1e-5)


@pytest.mark.parametrize(("patch", "stride"), [(2, 1), (3, 2), (4, 4), (1, 1), (5, 3)])
def test_occlusion_of_a_linear_model_is_the_average_sum_of_the_patches_over_a_pixel(linear, patch, stride):
    found = explained(make_occlusion, linear, patch=patch, stride=stride)
    for i, label in enumerate(linear.labels):
        share = linear.weights[..., label] * linear.x[i]  # what a pixel adds above the mean colour, which is 0
        total, count = np.zeros((6, 8)), np.zeros((6, 8))
        for top in range(stride - patch, 6, stride):
            for left in range(stride - patch, 8, stride):
                at = slice(max(top, 0), top + patch), slice(max(left, 0), left + patch)
                total[at] += share[at].sum()
                count[at] += 1
        np.testing.assert_allclose(found[i], total / count, rtol=1e-4, atol=1e-4)


def test_a_stride_that_leaves_pixels_out_is_refused():
    with pytest.raises(ValueError, match="at most the patch"):
        make_occlusion(Linear(), GREY, patch=2, stride=3)


@pytest.mark.parametrize("family", ["cifar", "efficientnet"])
def test_integrated_gradients_are_complete(family):
    """Sundararajan et al. 2017, proposition 1: all pixels come to the difference of the logits, here to 2 %."""
    made = classifier(family, engine_name="jax")
    fitted = np.stack([made.preprocess.fit(image) for image in images(2)])
    labels = np.array([1, 4])
    maps = made.explainer.maps(METHODS["integrated_gradients"], fitted, labels)
    logits = made.model.apply(
        made.variables, made.preprocess.normalise(jnp.asarray(np.r_[fitted, 0 * fitted]), jnp.float32)
    )
    gained = np.asarray(logits)[[0, 1], labels] - np.asarray(logits)[[2, 3], labels]
    assert np.abs(gained).min() > 0.05
    np.testing.assert_allclose(maps.sum((1, 2)), gained, rtol=0.02)


@pytest.mark.parametrize("method", OF_ANY_NETWORK)
def test_images_are_explained_alone_as_together(method):
    made = classifier("cifar", engine_name="jax")
    together = made.explain_batch(images(3), [0, 1, 2], method=method)
    alone = made.explain(images(3)[1], 1, method=method)
    np.testing.assert_allclose(together[1].heat, alone, atol=1e-4)


@pytest.mark.parametrize("method", OF_ANY_NETWORK)
def test_grey_images_are_explained(method):
    made = classifier("cifar", engine_name="jax", preprocess=GREY)
    image = np.random.default_rng(0).integers(0, 256, (12, 16), np.uint8)
    heat = made.explain(image, 2, method=method)
    assert heat.shape == image.shape
    assert heat.min() >= (-1 if METHODS[method].signed else 0)
    assert 0 < np.abs(heat).max() <= 1


def test_shap_says_what_to_install_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(UserError, match=r"pip install 'jaxnets\[explain\]'"):
        classifier(engine_name="jax").explain(images(1)[0], 1, method="shap")


def test_shapley_values_come_to_the_difference_from_the_blurred_image():
    pytest.importorskip("shap")
    import cv2

    made = classifier("cifar", engine_name="jax")
    fitted = np.stack([made.preprocess.fit(image) for image in images(2)])
    maps = made.explainer.maps(METHODS["shap"], fitted, np.array([1, 4]))
    for i, label in enumerate((1, 4)):
        blurred = cv2.blur(fitted[i].astype(np.float32), (16, 16)).round().astype(np.uint8)
        x = made.preprocess.normalise(jnp.asarray(np.stack([fitted[i], blurred])), jnp.float32)
        logits = made.model.apply(made.variables, x)
        np.testing.assert_allclose(maps[i].sum(), logits[0, label] - logits[1, label], rtol=1e-3)
