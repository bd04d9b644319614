"""Whether explanations follow the model: the randomisation check of Adebayo et al. 2018, and a collage."""

from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from jaxnets import load
from jaxnets.explain.cam import gradcam, gradcam_plus_plus, layercam, make_cam
from jaxnets.explain.gradients import make_integrated_gradients, make_smoothgrad
from jaxnets.explain.occlusion import make_occlusion
from jaxnets.explain.stage import find_stage
from jaxnets.models.registry import family_of
from tests.tiny import live

SIDE = 224  # pixels of the model's input
QUARTERS = ("Egyptian cat", "espresso", "moped", "daisy")  # of the collage, row by row
CAMS = {"gradcam": gradcam, "gradcam++": gradcam_plus_plus, "layercam": layercam}
# In fewer steps than users get.
PIXELS = {
    "integrated_gradients": partial(make_integrated_gradients, steps=8),
    "smoothgrad": partial(make_smoothgrad, samples=8),
    "occlusion": partial(make_occlusion, patch=56, stride=56),
}
METHODS = [*CAMS, *(pytest.param(name, marks=pytest.mark.slow) for name in PIXELS)]


@pytest.fixture(scope="module")
def lite0():
    return load("efficientnet_lite0", engine="jax")


@pytest.fixture(scope="module")
def collage():
    """A cat, a cup of coffee, a motorcycle and a dahlia, of which each fills a quarter."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    flower = load_sample_images().images[1]
    motorcycle = data.stereo_motorcycle()[0]
    quarters = [data.chelsea()[:, 100:400], data.coffee()[:, 100:500], motorcycle[:, 60:560], flower[:, 200:500]]
    side = SIDE // 2
    resized = [np.asarray(Image.fromarray(x).resize((side, side), Image.Resampling.BOX)) for x in quarters]
    return np.concatenate([np.concatenate(resized[:2], 1), np.concatenate(resized[2:], 1)])


@pytest.fixture(scope="module")
def maps(lite0, collage):
    """Returns a method's maps of the collage, one for each of its classes, brought to its size, with any weights."""
    programs, of_trained = {}, {}
    images = np.stack([collage] * 4)
    labels = np.array([lite0.find_label(name) for name in QUARTERS], np.int32)

    def maps(name, variables):
        if variables is lite0.variables and name in of_trained:
            return of_trained[name]
        if name not in programs:
            parts = lite0.model, lite0.preprocess
            made = make_cam(CAMS[name], *parts, find_stage(lite0.model, None)) if name in CAMS else PIXELS[name](*parts)
            # Whatever asks the network many times is quicker to compile well than to run.
            options = {} if name in CAMS else {"xla_backend_optimization_level": 1}
            programs[name] = jax.jit(made, compiler_options=options)
        found = np.asarray(programs[name](variables, images, labels))
        resized = np.stack([np.asarray(Image.fromarray(heat).resize((SIDE, SIDE))) for heat in found])
        if variables is lite0.variables:
            of_trained[name] = resized
        return resized

    return maps


@pytest.mark.parametrize("name", METHODS)
def test_the_heat_of_each_class_lies_in_its_quarter(lite0, maps, name):
    """Of four quarters, the right one holds far more of it than a quarter, and more than of the other classes' heat."""
    heat = maps(name, lite0.variables).clip(0)
    half = SIDE // 2
    quarters = heat.reshape(4, 2, half, 2, half).sum((2, 4)).reshape(4, 4)  # [class, quarter]
    shares = quarters / quarters.sum(1, keepdims=True)
    own = np.diag(shares)
    others = (shares.sum(0) - own) / 3
    assert own.mean() > (0.6 if name in CAMS else 0.35), shares.round(2)
    assert (own > others).all(), shares.round(2)


def randomised(lite0, layers):
    random = live(lite0.model, lite0.preprocess)
    return {
        kind: {layer: (random if layer in layers else lite0.variables)[kind][layer] for layer in held}
        for kind, held in lite0.variables.items()
    }


@pytest.mark.parametrize("name", METHODS)
def test_the_map_changes_as_weights_are_randomised_from_the_head_down(lite0, maps, name):
    """An explanation that survives a random network explains nothing."""
    groups = family_of(lite0.model).structure(lite0.model).groups(coarse=True)[::-1]
    true = maps(name, lite0.variables)
    correlations = []
    for depth in (1, len(groups)):  # the head alone, and the whole network
        layers = {layer for group in groups[:depth] for layer in group}
        found = maps(name, randomised(lite0, layers))
        assert np.ptp(found, (1, 2)).any()
        pairs = [(a[::4, ::4], b[::4, ::4]) for a, b in zip(true, found, strict=True) if np.ptp(b)]
        correlations.append(np.mean([spearmanr(a.ravel(), b.ravel())[0] for a, b in pairs]))
    assert correlations[0] < 0.8
    assert correlations[1] < 0.5
