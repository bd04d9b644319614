import shutil

import numpy as np
import pytest

import jaxnets
from jaxnets.run.checkpoints import steps
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.train.runs import short

IMAGES = [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i, shape in enumerate([(8, 8), (20, 9, 3)])]


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("run") / "digits"
    train(short(ema_decay=0.5, eval_every_steps=2), workdir, Display(), one_device)
    return workdir


@pytest.fixture(scope="module")
def classifier(run_directory):
    return jaxnets.load(run_directory)


def test_probabilities_add_up_to_one(classifier):
    p = classifier.predict(IMAGES)
    assert p.shape == (2, 10)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)


def test_a_image_is_predicted_the_same_in_any_company(classifier):
    together = classifier.predict([*IMAGES, *IMAGES, IMAGES[0]])
    alone = classifier.predict(IMAGES[1:])
    np.testing.assert_allclose(together[[1, 3]], np.repeat(alone, 2, 0), rtol=1e-4)
    np.testing.assert_allclose(classifier.predict([IMAGES[0]] * 5, batch_size=2), together[[0, 2, 4, 0, 2]], rtol=1e-4)


def test_a_list_and_an_array_of_the_same_images_agree(classifier):
    images = np.stack([IMAGES[0]] * 3)
    np.testing.assert_array_equal(classifier.predict(images), classifier.predict(list(images)))


def test_no_images_give_no_rows(classifier):
    assert classifier.predict([]).shape == (0, 10)


def test_what_is_no_image_is_refused(classifier):
    with pytest.raises(ValueError, match="an image is uint8"):
        classifier.predict([np.zeros((8, 8))])


def test_the_averaged_weights_are_taken_unless_raw_ones_are_asked_for(run_directory, classifier):
    raw = jaxnets.load(run_directory, weights="raw")
    kernels = [loaded.variables["params"]["head"]["kernel"] for loaded in (classifier, raw)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0


def test_a_checkpoint_is_chosen_by_name_and_by_step(run_directory):
    saved = steps(run_directory / "checkpoints")
    assert [jaxnets.load(run_directory, name).step for name in ("newest", saved[0])] == [saved[-1], saved[0]]


def test_a_moved_and_read_only_run_opens(run_directory, classifier, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(run_directory, moved)
    for path in [*moved.rglob("*"), moved]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(moved.rglob("*"))
    np.testing.assert_array_equal(jaxnets.load(moved).predict(IMAGES), classifier.predict(IMAGES))
    assert sorted(moved.rglob("*")) == before


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(run_directory, tmp_path, caplog):
    copy = tmp_path / "copy"
    shutil.copytree(run_directory, copy)
    *_, before, newest = steps(copy / "checkpoints")
    for file in (copy / "checkpoints" / str(newest) / "ema" / "d").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert jaxnets.load(copy, "newest").step == before
    assert f"using step {before} instead" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nowhere",), "there is no model 'nowhere'"),
        ((".",), "neither a run directory"),
    ],
)
def test_what_is_no_run_is_refused(arguments, expected):
    with pytest.raises(jaxnets.UserError, match=expected):
        jaxnets.load(*arguments)


def test_unknown_weights_are_refused(run_directory):
    with pytest.raises(jaxnets.UserError, match="weights must be ema or raw, found 'best'"):
        jaxnets.load(run_directory, weights="best")
