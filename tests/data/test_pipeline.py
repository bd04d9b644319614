import gc
import itertools

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnets.data.canvas import Canvas
from jaxnets.data.decode import decode_reduced
from jaxnets.data.examples import Examples, _for_each, substitutes
from jaxnets.data.order import Order
from jaxnets.data.pipeline import _Arrays, evaluation_batches, rows_within, train_stream
from jaxnets.data.sources import ArraySplit, CorruptImage, Subset
from jaxnets.data.sources.files import FileSplit
from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 1), np.uint8)
LABELS = np.arange(23, dtype=np.int32)


class Files:
    """A split that has to be read, some of it corrupt."""

    targets = None

    def __init__(self, corrupt=()):
        self.labels = LABELS
        self.corrupt = corrupt

    def __len__(self):
        return len(LABELS)

    def image(self, index):
        if index in self.corrupt:
            raise CorruptImage(f"image-{index}.png is cut off")
        return IMAGES[index]


def examples(split=None, chosen=None, *, skip_corrupt=False):
    preprocess = Preprocess(height=4, width=4, channels=1, mean=(0.5,), std=(0.5,))
    chosen = np.arange(23) if chosen is None else np.array(chosen)
    return Examples(split or ArraySplit(IMAGES, LABELS), chosen, preprocess, skip_corrupt=skip_corrupt)


def stream(of, start=0, stop=12):
    return list(train_stream(of, order=Order(3, of.labels), batch_size=5, start_step=start, stop_step=stop, threads=3))


@pytest.mark.parametrize("split", [ArraySplit(IMAGES, LABELS), Files()], ids=["memory", "files"])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 64])
def test_evaluation_sees_every_example_once_and_masks_the_rest(split, batch_size):
    batches = list(evaluation_batches(examples(split), batch_size=batch_size, threads=2))
    assert all(len(batch.image) == batch_size for batch in batches)
    seen = np.concatenate([batch.label[batch.mask] for batch in batches])
    np.testing.assert_array_equal(seen, LABELS)
    np.testing.assert_array_equal(np.concatenate([batch.image[batch.mask] for batch in batches]), IMAGES)


def test_training_batches_are_full_and_run_over_the_ends_of_epochs():
    batches = stream(examples(Files()))
    assert all(len(batch.label) == 5 and batch.mask.all() for batch in batches)
    labels = np.concatenate([batch.label for batch in batches])
    assert sorted(labels[:23]) == sorted(labels[23:46]) == list(range(23))


def test_a_image_arrives_with_its_label():
    for batch in stream(examples(Files())):
        np.testing.assert_array_equal(batch.image, IMAGES[batch.label])


def test_a_stream_that_starts_later_continues_the_same_order():
    whole, rest = stream(examples(Files())), stream(examples(Files()), start=7)
    for expected, found in zip(whole[7:], rest, strict=True):
        np.testing.assert_array_equal(found.label, expected.label)
        np.testing.assert_array_equal(found.epoch, expected.epoch)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_batches_are_the_same_for_any_number_of_threads(threads):
    some = [examples(Files(corrupt=[4, 5, 22]), skip_corrupt=True) for _ in range(2)]
    expected, found = (
        train_stream(one, order=Order(3, one.labels), batch_size=5, start_step=2, stop_step=12, threads=count)
        for one, count in zip(some, (3, threads), strict=True)
    )
    for a, b in zip(expected, found, strict=True):
        for name in ("image", "label", "mask", "index", "epoch", "aspect"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_few_batches_are_made_ahead_where_they_are_large():
    ahead = [
        train_stream(
            examples(Files()), order=Order(3, LABELS), batch_size=size, start_step=0, stop_step=1, threads=0
        )._work._ahead
        for size in (8, 2**23)
    ]
    assert ahead == [4, 2]


@pytest.mark.parametrize("hold", [lambda x: x, lambda x: x[1:3], lambda x: x.reshape(-1)[5:], jax.device_put])
def test_memory_that_somebody_holds_is_not_used_again(hold):
    arrays = _Arrays((4, 64, 64, 3))
    array = arrays.take()
    array[...] = np.random.default_rng(0).integers(0, 99, array.shape)
    held = hold(array)
    expected = np.array(held)
    address = array.ctypes.data
    del array
    gc.collect()
    for _ in range(5):
        arrays.take()[...] = 200
    np.testing.assert_array_equal(held, expected)
    del held
    gc.collect()
    assert address in [x.ctypes.data for x in (arrays.take(), arrays.take(), arrays.take())]


def test_a_canvas_is_made_of_an_image_that_was_decoded_smaller_whatever_lies_between(tmp_path):
    whole = np.add.outer(np.arange(120), np.arange(90)).astype(np.uint8)
    Image.fromarray(whole).save(tmp_path / "a.jpg")
    files = FileSplit(str(tmp_path), [str(tmp_path / "a.jpg")], np.zeros(1, np.int32), 65535)
    canvas = Canvas(height=15, width=15, channels=1)
    expected = np.empty((15, 15, 1), np.uint8)
    canvas.squeeze_reduced(decode_reduced(tmp_path / "a.jpg", "a", least=(15, 15)), expected)
    for split in (files, Subset(files, np.arange(1)), Subset(Subset(files, np.arange(1)), np.arange(1))):
        some = Examples(split, np.arange(1), canvas, skip_corrupt=False)
        image = some.read(0)
        np.testing.assert_array_equal(image.image, expected)
        assert image.aspect == np.float32(90 / 120)
        np.testing.assert_array_equal(some.load(1)[0], expected)  # on the device, too


def test_evaluation_sees_the_whole_image(tmp_path):
    Image.effect_noise((90, 120), 60).save(tmp_path / "a.jpg")
    files = FileSplit(str(tmp_path), [str(tmp_path / "a.jpg")], np.zeros(1, np.int32), 65535)
    preprocess = Preprocess(height=15, width=15, channels=1, mean=(0.5,), std=(0.5,))
    some = Examples(files, np.arange(1), preprocess, skip_corrupt=False)
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(some.read(0).image, preprocess.fit(np.asarray(image)))


def test_chosen_examples_alone_are_read():
    some = examples(Files(), [2, 3, 5, 7, 11])
    assert {label for batch in stream(some) for label in batch.label} == {2, 3, 5, 7, 11}
    np.testing.assert_array_equal(some.load(2), IMAGES[[2, 3, 5, 7, 11]])


@pytest.mark.parametrize("read", [lambda e: e.load(2), stream])
def test_a_corrupt_image_stops_training_and_is_named(read):
    with pytest.raises(UserError, match=r"image-4.png is cut off: .*skip_corrupt"):
        read(examples(Files(corrupt=[4])))


def test_skipped_images_are_replaced_by_the_next_in_training():
    some = examples(Files(corrupt=[4, 5, 22]), skip_corrupt=True)
    labels = np.concatenate([batch.label for batch in stream(some)])[:23]
    assert sorted(labels) == sorted([*range(4), 6, 6, *range(6, 22), 0])


def test_both_feeds_replace_the_same_images():
    some = examples(Files(corrupt=[4, 5, 22]), skip_corrupt=True)
    some.load(2)
    for index, substitute in enumerate(substitutes(23, some.corrupt)):
        assert some.read_substituting(index, np.empty((4, 4, 1), np.uint8)) == substitute


HALVES = [np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7])]  # the rows of two hosts


def assert_halves_make_the_whole(read):
    whole, *halves = (list(read(rows)) for rows in (None, *HALVES))
    for parts in zip(*halves, whole, strict=True):
        for name in ("image", "label", "mask", "index", "epoch"):
            first, second, expected = (getattr(part, name) for part in parts)
            together = np.empty_like(expected)
            together[HALVES[0]], together[HALVES[1]] = first, second
            np.testing.assert_array_equal(together, expected)


def test_hosts_read_their_rows_of_the_same_training_batches():
    options = {"order": Order(3, LABELS), "batch_size": 8, "start_step": 2, "stop_step": 7, "threads": 2}
    assert_halves_make_the_whole(lambda rows: train_stream(examples(Files()), rows=rows, **options))


@pytest.mark.parametrize("source", [Files, lambda: ArraySplit(IMAGES, LABELS)])
def test_hosts_read_their_rows_of_the_same_evaluation_batches(source):
    options = {"batch_size": 8, "threads": 2}
    assert_halves_make_the_whole(lambda rows: evaluation_batches(examples(source()), rows=rows, **options))


def test_a_host_that_loads_its_rows_reads_no_others():
    some = examples(Files())
    chosen = rows_within(23, 8, HALVES[1])
    assert chosen.tolist() == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22]
    some.load(2, chosen)
    some._split = None  # whoever reads again fails
    for batch in evaluation_batches(some, batch_size=8, threads=2, rows=HALVES[1]):
        here = batch.index[batch.mask]
        np.testing.assert_array_equal(batch.image[batch.mask], IMAGES[here])


def test_skipped_images_are_masked_in_evaluation():
    some = examples(Files(corrupt=[4, 22]), skip_corrupt=True)
    seen = np.concatenate([batch.label[batch.mask] for batch in evaluation_batches(some, batch_size=8, threads=2)])
    assert sorted(seen) == [label for label in range(23) if label not in (4, 22)]


def test_each_skipped_image_is_named_once(caplog):
    some = examples(Files(corrupt=[4]), skip_corrupt=True)
    for _ in range(3):
        some.load(2)
        stream(some)
    assert [record.getMessage() for record in caplog.records] == ["skipped: image-4.png is cut off"]


def test_images_that_can_none_be_read_are_refused():
    some = examples(Files(corrupt=range(23)), skip_corrupt=True)
    with pytest.raises(UserError, match="none of the training images can be read"):
        stream(some)


def test_reading_asks_for_indices_as_it_goes_and_ends_at_the_first_error():
    """Of endless indices a list, or a future for each, would never end."""

    def read(index: int) -> None:
        if index == 500:
            raise UserError("image 500 is corrupt")

    with pytest.raises(UserError, match="image 500"):
        _for_each(read, itertools.count(), threads=3)


def test_reading_calls_for_every_index_once():
    seen: list[int] = []
    _for_each(seen.append, range(1000), threads=4)
    assert sorted(seen) == list(range(1000))
