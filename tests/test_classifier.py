import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets.errors import UserError
from jaxnets.run.checkpoints import steps
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.train.runs import short

IMAGES = [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i, shape in enumerate([(8, 8), (20, 9, 3)])]


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("run") / "digits"
    train(short(ema={"decay": 0.5}, eval_every_steps=2), workdir, Display(), one_device)
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
    images = np.stack([IMAGES[0]] * 5)
    np.testing.assert_array_equal(classifier.predict(images), classifier.predict(list(images)))


def test_no_images_give_no_rows(classifier):
    assert classifier.predict([]).shape == (0, 10)


GREY, COLOUR = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3, IMAGES[1]


@pytest.mark.parametrize(
    "given",
    [
        lambda folder: COLOUR,
        lambda folder: [COLOUR],
        lambda folder: (COLOUR for _ in range(1)),
        lambda folder: COLOUR[None],
        lambda folder: folder / "colour.png",
        lambda folder: str(folder / "colour.png"),
        lambda folder: [folder / "colour.png"],
        lambda folder: Image.fromarray(COLOUR),
        lambda folder: [Image.open(folder / "colour.png")],
        lambda folder: jnp.asarray(COLOUR),
    ],
)
def test_one_image_is_one_image_in_every_form(classifier, given, tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "colour.png")
    np.testing.assert_array_equal(classifier.predict(given(tmp_path)), classifier.predict([COLOUR]))


@pytest.mark.parametrize("given", [GREY, GREY[..., None], GREY[None], Image.fromarray(GREY)])
def test_a_grey_image_is_one_image_in_every_form(classifier, given):
    np.testing.assert_array_equal(classifier.predict(given), classifier.predict([GREY]))


def test_an_image_with_its_own_orientation_is_turned_upright(classifier):
    turned = Image.fromarray(COLOUR)
    turned.getexif()[274] = 6
    np.testing.assert_array_equal(classifier.predict(turned), classifier.predict([np.rot90(COLOUR, -1)]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([np.zeros((8, 8))], "an image is uint8"),
        (np.zeros((3, 28, 28), np.uint8), r"may be 3 grey images, or one whose channels come first"),
        ([np.zeros((3, 28, 28), np.uint8)], "channels come last"),
        (np.zeros((5, 3, 28, 28), np.uint8), "channels come last"),
        (np.zeros((2, 8, 8, 2), np.uint8), r"with c = 1, 3 or 4, found \(2, 8, 8, 2\)"),
        (np.zeros(8, np.uint8), r"found \(8,\)"),
        (7, "found int"),
        ([["a", "b"]], "an image is"),
        (".", "is a folder"),
    ],
)
def test_what_is_no_image_or_could_be_read_in_two_ways_is_refused(classifier, given, said):
    with pytest.raises(ValueError, match=said):
        classifier.predict(given)


def test_a_number_is_a_number_and_text_may_be_a_name(classifier):
    numbered = dataclasses.replace(classifier, labels=("1", "2", "3", "0", "cat"))
    assert [numbered.find_label(label) for label in (1, 0, np.int64(4))] == [1, 0, 4]
    assert [numbered.find_label(label) for label in ("1", "0", "cat", "4")] == [0, 3, 4, 4]
    for label in (5, -1, "5", "dog", "-1"):
        with pytest.raises(UserError, match="there is no class"):
            numbered.find_label(label)


def test_what_is_embedded_is_what_the_head_sees(classifier):
    head = classifier.variables["params"]["head"]
    logits = classifier.embed(IMAGES) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, classifier.predict(IMAGES), rtol=1e-3, atol=1e-6)
    assert classifier.embed([]).shape == (0, classifier.embed(IMAGES).shape[1])


def test_a_classifier_is_shown_in_one_line(classifier):
    assert repr(classifier) == f"<Classifier resnet8_cifar, step {classifier.step}: 8×8×1 → 10 classes>"
    explanation = repr(classifier.explain_batch([GREY])[0])
    assert explanation.startswith("Explanation(label=")
    assert explanation.endswith("heat=[8, 8])")


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
