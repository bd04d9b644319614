from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxnets import UserError, load
from jaxnets.explain.gradcam import logits_and_output, make_gradcam, stages
from jaxnets.explain.overlay import overlay
from tests.tiny import classifier, images, live


def test_the_map_has_the_images_size_and_its_peak_is_one():
    made = classifier(engine_name="jax")
    [image] = images(1)
    heat = made.explain(image, label=2)
    assert heat.shape == image.shape[:2]
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() <= 1


def test_the_weights_are_the_average_gradients_of_the_logit():
    """On a linear tail (global average, dense) the gradient by A_k is the head's weight over the number of places."""
    made = classifier("cifar", engine_name="jax")
    image = made.preprocess.fit(images(1)[0])[None]
    layer = stages(made.model)["stage2"]
    heat, _ = make_gradcam(made.model, made.preprocess, layer)(made.variables, image, np.array([3]))
    activation = np.asarray(logits_and_output(made.model, made.preprocess, made.variables, image, layer, None)[1])
    weights = made.variables["params"]["head"]["kernel"][:, 3] / (activation.shape[1] * activation.shape[2])
    np.testing.assert_allclose(heat[0], np.maximum(activation[0] @ weights, 0), rtol=1e-3, atol=1e-6)


def test_images_are_explained_alone_as_together():
    made = classifier("efficientnet", engine_name="jax")
    together = made.explain_batch(images(3), [0, 1, 2])
    for found, image, label in zip(together, images(3), range(3), strict=True):
        np.testing.assert_allclose(found.heat, made.explain(image, label), atol=1e-3)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_every_stage_can_be_asked(stage):
    assert classifier(engine_name="jax").explain(images(1)[0], 0, stage).shape == images(1)[0].shape[:2]


def test_a_stage_or_class_that_is_none_is_refused_with_the_nearest():
    made = classifier(engine_name="jax")
    with pytest.raises(UserError, match=r"no stage 'stage3' \(did you mean 'stage"):
        made.explain(images(1)[0], 0, "stage3")
    with pytest.raises(UserError, match=r"no class 'clas 1' \(did you mean 'class 1'"):
        made.explain(images(1)[0], "clas 1")


def test_the_overlay_grows_lighter_with_the_map():
    grey = np.full((1, 5, 3), 100, np.uint8)
    drawn = overlay(grey, np.linspace(0, 1, 5, dtype=np.float32)[None])
    luma = drawn[0].astype(float) @ [0.299, 0.587, 0.114]
    assert (drawn[0, 0] == 100).all()
    assert (np.diff(luma[1:]) > 0).all()


@pytest.fixture(scope="module")
def lite0():
    return load("efficientnet_lite0", engine="jax")


@pytest.fixture(scope="module")
def pasted():
    """An image whose left half is a cat and whose right half is a cup of coffee."""
    from PIL import Image
    from skimage import data

    halves = [np.asarray(Image.fromarray(x).resize((224, 448))) for x in (data.chelsea()[:, 100:400], data.coffee())]
    return np.concatenate(halves, 1)


@pytest.mark.parametrize(("label", "half"), [("Egyptian cat", 0), ("espresso", 1)])
def test_each_label_lights_its_half_of_two_photographs(lite0, pasted, label, half):
    heat = lite0.explain(pasted, label)
    shares = [part.sum() / heat.sum() for part in np.split(heat, 2, 1)]
    assert shares[half] > 0.7, shares


def test_the_map_changes_when_the_weights_are_random(lite0, pasted):
    """Adebayo et al. 2018: an explanation that survives a random network explains nothing."""
    random = replace(lite0, variables=jax.device_get(live(lite0.model, lite0.preprocess)))
    maps = [made.explain(pasted, "espresso").ravel() for made in (lite0, random)]
    assert np.corrcoef(*maps)[0, 1] < 0.5
