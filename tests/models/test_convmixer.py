import numpy as np
import pytest

import jaxnets
from jaxnets.models.describe import size
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.train.runs import short


def test_parameters_and_multiply_adds_are_those_of_the_paper_s_architecture():
    found = size(jaxnets.create_model("convmixer_256_8"), 32, 32)
    block = (81 + 256) * 256 + 2 * 2 * 256
    assert found.parameters == (3 * 256 + 256 + 2 * 256) + 8 * block + 2570
    assert found.multiply_adds == 32 * 32 * (3 * 256 + 8 * (81 + 256) * 256) + 2560


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("convmixer")
    train(short(steps=60, batch_size=64, eval_every_steps=60, model={"name": "convmixer_tiny"}), workdir, Display())
    return workdir


def test_it_is_trained_loaded_explained_and_exported(run, tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [np.uint8(image * 15.9) for image in digits.images[:64]]
    made = jaxnets.load(run, engine="jax")
    answers = made.predict(images)
    assert (answers.argmax(1) == digits.target[:64]).mean() > 0.3
    assert made.explain(images[0]).shape == (8, 8)
    np.testing.assert_allclose(jaxnets.load(run, engine="onnx").predict(images), answers, atol=1e-5)
