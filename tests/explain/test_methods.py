"""The table of methods, what is chosen from it, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from jaxnets import UserError, create_model
from jaxnets.explain.methods import METHODS, find_method, find_methods
from jaxnets.preprocess import Preprocess
from tests.tiny import classifier, images, live

SMALL = Preprocess(height=8, width=8, channels=1, mean=(0.5,), std=(0.3,))


def test_every_method_says_where_it_comes_from():
    assert all(method.paper and method.title and method.cost for method in METHODS.values())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("gradcam", "gradcam"),
        ("Grad-CAM++", "gradcam++"),
        ("gradcampp", "gradcam++"),
        ("Integrated Gradients", "integrated_gradients"),
        ("smooth_grad", "smoothgrad"),
        (" SHAP ", "shap"),
    ],
)
def test_a_method_is_found_however_it_is_written(given, meant):
    assert find_method(given).name == meant


def test_all_stands_for_each_method_once():
    names = [method.name for method in find_methods(["occlusion", "all", "gradcam"])]
    assert names[0] == "occlusion"
    assert set(names) - {"shap"} == set(METHODS) - {"shap"}
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "gradcan"}, r"no method 'gradcan' \(did you mean 'gradcam'\?\); there are gradcam, gradcam\+\+"),
        ({"method": "lime"}, "no method 'lime'"),
        ({"method": "occlusion", "stage": "stage1"}, "asks the whole network, and stage 'stage1' is given"),
        ({"stage": "stage3"}, r"no stage 'stage3' \(did you mean 'stage"),
        ({"label": "clas 1"}, r"no class 'clas 1' \(did you mean 'class 1'"),
        ({"label": 5}, "no class 5"),
    ],
)
def test_what_there_is_not_is_refused_with_the_nearest(asked, message):
    with pytest.raises(UserError, match=message):
        classifier(engine_name="jax").explain(images(1)[0], **{"label": 0, **asked})


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40), (40, 1, 3)])
def test_an_image_without_places_is_refused(shape):
    with pytest.raises(UserError, match="no places to tell apart"):
        classifier(engine_name="jax").explain(np.zeros(shape, np.uint8), 0)


def test_a_network_whose_stages_have_one_place_is_explained_by_occlusion():
    model = create_model("mlp", widths=(16, 12), num_classes=5, preprocess=SMALL)
    made = replace(classifier(engine_name="jax"), model=model, preprocess=SMALL, variables=live(model, SMALL))
    image = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    (found,) = made.explain_batch([image], [1])
    assert found.method == "occlusion"
    assert np.abs(found.heat).max() > 0
    with pytest.raises(UserError, match="has one place for all of an image of 8 × 8 pixels"):
        made.explain(image, 1, method="gradcam")


def test_today_s_call_is_gradcam():
    made = classifier(engine_name="jax")
    [image] = images(1)
    np.testing.assert_array_equal(
        made.explain(image, 2, "stage1"), made.explain(image, label=2, stage="stage1", method="gradcam")
    )
    heat = made.explain(image, 2)
    assert heat.shape == image.shape[:2]
    assert heat.dtype == np.float32
    assert 0 <= heat.min() <= heat.max() <= 1
