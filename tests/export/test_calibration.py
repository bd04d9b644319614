import numpy as np
import pytest
from PIL import Image

from jaxnets.errors import UserError
from jaxnets.export.calibration import Calibration, open_calibration
from jaxnets.export.int8 import measured
from tests.export.runs import GREY, digit_images, run_on_digits
from tests.tiny import classifier

DIGITS = digit_images(700)
BLACK, WHITE = np.zeros((1, 8, 8), np.uint8), np.full((1, 8, 8), 255, np.uint8)
COLOURS = np.arange(0, 240, 6, np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
NOISE = np.random.default_rng(0).integers(-3, 4, (60, 8, 8))


@pytest.fixture(scope="module")
def made():
    return classifier(preprocess=GREY)


@pytest.fixture
def calibrate(made, tmp_path):
    """Opens the calibration that a folder of such images gives."""

    def calibrate(images: np.ndarray, damaged: int = 0) -> Calibration:
        for i, pixels in enumerate(images):
            Image.fromarray(pixels).save(tmp_path / f"{i:04}.png")
        for i in range(damaged):
            (tmp_path / f"damaged{i}.png").write_bytes(b"no image")
        return open_calibration("resnet8_cifar", made, tmp_path)

    return calibrate


def logits(images):
    """Stands for a model that sees each pixel."""
    return images.reshape(len(images), -1).astype(np.float32)


FEW, FLAT, ALIKE, SAME = "different image", "hardly more than one colour", "alike to the model", "says little of others"


@pytest.mark.parametrize(
    ("images", "used", "measure", "doubts"),
    [
        (BLACK, 1, "the same 1 image", [FEW, FLAT, SAME]),
        (DIGITS[:1], 1, "the same 1 image", [FEW, SAME]),
        (DIGITS[:1].repeat(5, 0), 1, "the same 1 image", [FEW, SAME]),
        (WHITE.repeat(100, 0), 1, "the same 1 image", [FEW, FLAT, SAME]),
        (DIGITS[:7], 7, "the same 7 images", [FEW, SAME]),
        (DIGITS[:17], 13, "4 other images", [FEW, "each of which is 25.0%"]),
        (COLOURS, 30, "10 other images", [FEW, FLAT, "each of which is 10.0%"]),
        (120 + DIGITS[:60] // 200, 45, "15 other images", [FLAT, "each of which is 6.7%"]),
        (np.clip(DIGITS[0] + NOISE, 0, 255).astype(np.uint8), 45, "15 other images", [ALIKE, "each of which is 6.7%"]),
        (DIGITS, 256, "444 other images", []),
    ],
    ids=["black", "one", "copies", "white", "few", "less than a batch", "colours", "dim", "alike", "many"],
)
def test_calibration_says_what_it_cannot_vouch_for(calibrate, images, used, measure, doubts):
    made = calibrate(images)
    assert (len(made.images), made.measure) == (used, f"agreement with float32 on {measure}")
    said = made.doubts(logits, max_loss=0.01)
    assert len(said) == len(doubts)
    assert all(expected in sentence for expected, sentence in zip(doubts, said, strict=True))


def test_int8_is_never_measured_on_what_it_was_calibrated_on_where_there_are_others(calibrate):
    made = calibrate(np.concatenate([DIGITS[:20], DIGITS[:20]]))
    assert made.source.endswith("(20 are copies of others)")
    used, scored = ({image.tobytes() for image in images} for images in (made.images, made.scored))
    assert (len(used), len(scored)) == (15, 5)
    assert not used & scored


def test_images_that_cannot_be_read_are_counted(calibrate):
    made = calibrate(DIGITS[:40], damaged=3)
    assert made.source.endswith("(3 could not be read)")
    assert len(made.images) == 30


def test_calibration_without_a_single_image_is_refused(calibrate, made, tmp_path):
    with pytest.raises(UserError, match="none of the 2 images in --calibration"):
        calibrate(DIGITS[:0], damaged=2)
    with pytest.raises(UserError, match="is no folder"):
        open_calibration("resnet8_cifar", made, tmp_path / "0000.png")


def test_a_run_is_measured_by_the_labels_of_its_test_split(made, tmp_path):
    found = open_calibration(str(run_on_digits(tmp_path / "run")), made, None)
    assert found.measure == f"test accuracy of {len(found.scored)} images"
    assert len(found.labels) == len(found.scored) > 300
    assert len(found.images) == 256
    assert found.doubts(logits, max_loss=0.01) == []


@pytest.mark.parametrize(
    ("labels", "activation", "exact", "rough"),
    [
        (None, "softmax", 1.0, 0.5),  # the most probable class agrees for one image of two
        (None, "sigmoid", 1.0, 5 / 6),  # one class of three is answered otherwise for one of them
        (np.array([0, 2]), "softmax", 0.5, 1.0),
        (np.array([0, 2]), "sigmoid", 0.5, 1.0),
        (np.array([[1, 0, 0], [0, 1, 1]], np.float32), "sigmoid", 1.0, 5 / 6),
    ],
)
def test_answers_are_compared_as_the_model_gives_them(labels, activation, exact, rough):
    images = np.zeros((2, 8, 8, 1), np.uint8)
    before = np.array([[3, -1, -2], [-1, 2, 1]], np.float32)
    after = np.array([[3, -1, -2], [-1, -2, 1]], np.float32)
    calibration = Calibration(
        images=images, deviation=np.ones(1), source="", scored=images, labels=labels, measure="agreement"
    )
    found = measured(calibration, activation, lambda images: before, lambda images: after)
    assert found == pytest.approx((exact, rough))
    if activation == "sigmoid" and labels is None:  # a label whose threshold both are below, or above
        for threshold in (0.05, 0.95):
            found = measured(
                calibration, activation, lambda images: before, lambda images: after, (0.5, threshold, 0.5)
            )
            assert found == (1.0, 1.0)
