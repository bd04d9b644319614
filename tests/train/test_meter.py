"""What share of the time the devices wait for data, how near to their peak they come, and what is said of it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.chips import chip_of, peak_flops
from jaxnets.config import DataConfig
from jaxnets.cores import cores
from jaxnets.recipe.optimizer.sam import Sam
from jaxnets.train.feed import Draws, StreamFeed
from jaxnets.train.meter import Meter, remedy_of


def feed(flops=None):
    return SimpleNamespace(waited=0.0, flops=flops)


def test_the_share_is_of_the_time_since_the_last_row():
    of = feed()
    meter = Meter(of, None, "")
    of.waited = 5.0  # before the first dispatch ended, of which nothing is known
    meter.add(1, None)
    assert meter.figures() == {"data_wait": None}
    for waited, seconds in ((6.0, 2.0), (6.0, 2.0)):
        of.waited = waited
        meter.add(4, seconds)
    assert meter.figures() == {"data_wait": 0.25}
    meter.add(4, 3.0)
    assert meter.figures() == {"data_wait": 0.0}


def test_the_operations_of_each_micro_batch_count():
    meter = Meter(feed(flops=3e12), 100e12, "", micro_batches=4)
    meter.add(10, 2.0)
    assert meter.figures()["mfu"] == pytest.approx(4 * 10 * 3e12 / 2.0 / 100e12)


def test_steps_of_one_gradient_between_those_of_two_count_as_half():
    meter = Meter(feed(flops=3e12), 100e12, "", average=Sam(radius=0.1, every=10).average)
    meter.add(10, 2.0)
    assert meter.figures()["mfu"] == pytest.approx((1 * 3e12 + 9 * 1.5e12) / 2.0 / 100e12)


def test_utilisation_is_the_operations_done_by_those_that_could_have_been():
    meter = Meter(feed(flops=3e12), 100e12, "")
    meter.add(10, 1.0)
    meter.add(10, 1.5)
    assert meter.figures() == {"data_wait": 0.0, "mfu": pytest.approx(20 * 3e12 / 2.5 / 100e12)}


@pytest.mark.parametrize(("flops", "peak"), [(None, 1e12), (1e9, None)])
def test_utilisation_that_cannot_be_told_is_not_there(flops, peak):
    meter = Meter(feed(flops), peak, "")
    meter.add(1, 1.0)
    assert "mfu" not in meter.figures()


def test_advice_is_given_once_and_only_where_it_is_sure():
    of = feed()
    meter = Meter(of, None, "turn this knob")
    said = []
    for seconds, waited in ((9.0, 8.0), (100.0, 9.0), (10.0, 1.1), (10.0, 5.0)):
        of.waited += waited
        meter.add(1, seconds)
        said.append(meter.advice(meter.figures()["data_wait"]))
    assert said == [None, None, "the devices wait for data 11% of the time: turn this knob", None]


def test_the_remedy_names_what_can_be_turned():
    training = SimpleNamespace(nbytes=3 * 2**30, shape=(280, 300, 3), cut=False)
    text = remedy_of(DataConfig(source="folder:/data/x"), training, threads=0)
    assert f"threads={cores()} (now 0" in text
    assert "placement=device where 3,072 MiB fit" in text
    assert "python -m jaxnets.prepare --source folder:/data/x" in text
    assert "canvas_size (now 280x300)" in text
    prepared = remedy_of(DataConfig(source="prepared:/data/x"), training, threads=cores())
    cut = remedy_of(DataConfig(source="folder:/data/x"), SimpleNamespace(cut=True), threads=0)
    assert "jaxnets.prepare" in cut
    assert "placement" not in cut
    assert "canvas_size" not in cut
    assert "threads" not in prepared
    assert "jaxnets.prepare" not in prepared


def device(kind, number, coords=None):
    made = SimpleNamespace(device_kind=kind, id=number, process_index=0)
    if coords is not None:
        made.coords = coords
    return made


def test_a_chip_that_is_two_devices_gives_each_half_of_its_peak():
    two = [device("TPU v3", i, (i // 2, 0, 0)) for i in range(8)]
    one = [device("TPU v4", i, (i, 0, 0)) for i in range(4)]
    assert peak_flops(two) == chip_of("TPU v3").flops / 2
    assert peak_flops(one) == chip_of("TPU v4").flops
    assert peak_flops([device("NVIDIA H100 80GB HBM3", i) for i in range(8)]) == 989e12
    assert peak_flops([device("cpu", 0)]) is None


class Slow:
    """A loader whose batches come at the third look."""

    def __init__(self, looks=3):
        self.looks, self.left = looks, looks

    def ready(self, seconds):
        self.left -= 1
        return self.left <= 0

    def __next__(self):
        self.left = self.looks
        return "batch"


def test_devices_wait_only_while_they_have_nothing_to_do(monkeypatch, one_device):
    clock = iter(np.arange(0.0, 100.0))
    monkeypatch.setattr("jaxnets.train.feed.time.perf_counter", lambda: next(clock))
    examples = SimpleNamespace(shape=(4, 4, 1), labels=np.zeros(2, np.int32))
    stream = StreamFeed(examples, Draws(order=None, batch_size=2, stop_step=1), None, 1, one_device)
    busy = SimpleNamespace(is_ready=lambda: False)
    stream._last = {"loss": busy}
    assert stream._next(Slow()) == "batch"
    assert stream.waited == 0
    stream._last = {"loss": jax.block_until_ready(jnp.ones(1))}
    stream._next(Slow())
    assert stream.waited == 1  # one tick from when it began to wait to when the batch was there
    looks = iter([False, True, True])
    stream._last = {"loss": SimpleNamespace(is_ready=lambda: next(looks))}
    stream._next(Slow())
    assert stream.waited == 2  # from when they were seen to be done
