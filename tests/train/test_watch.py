"""What waits in vain, or would, is ended with a message."""

import signal
import threading

import jax
import pytest

from jaxnets import exit
from jaxnets.errors import TryAgain, UserError
from jaxnets.train.stop import Stop
from jaxnets.train.watch import Watch, watching


class FakeHosts:
    """Two processes that share a dictionary in place of JAX's coordination service."""

    several = True
    processes = 2

    def __init__(self, process: int, store: dict[str, str]) -> None:
        self.process, self.store, self.ended = process, store, False

    def publish(self, name: str, text: str) -> None:
        self.store[name] = text

    def published(self, folder: str) -> dict[str, str]:
        found = {name: text for name, text in self.store.items() if name.startswith(f"{folder}/")}
        return {name.rpartition("/")[2]: text for name, text in found.items()}

    def end_together(self) -> None:
        self.ended = True


class Lone:
    several = False

    def end_together(self) -> None: ...


@pytest.fixture(autouse=True)
def orderly(monkeypatch):
    monkeypatch.setattr(exit, "_at_once", threading.Event())  # is for good, otherwise


class Ended(Exception):
    pass


def end(message: str, status: int) -> None:
    raise Ended(message, status)


def tick(watch: Watch, times: int) -> None:
    for _ in range(times):
        watch.tick()
        if watch._hosts.several:
            watch.look()


def pair(hang_minutes=None):
    """Returns two watches, their wishes to stop and their hosts."""
    store: dict[str, str] = {}
    stops, hosts = [Stop(), Stop()], [FakeHosts(i, store) for i in range(2)]
    return [Watch(stop, host, hang_minutes, end) for stop, host in zip(stops, hosts, strict=True)], stops, hosts


def test_a_step_that_hangs_ends_the_run():
    watch = Watch(Stop(), Lone(), 0.05, end)  # six ticks
    watch.progress()
    tick(watch, 6)
    with pytest.raises(Ended, match=r"nothing was finished for 0.05 minutes.*config.hang_minutes") as ended:
        watch.tick()
    assert ended.value.args[1] == TryAgain.status == 75


def test_steps_that_go_on_are_no_hang():
    watch = Watch(Stop(), Lone(), 0.05, end)
    for _ in range(20):
        watch.progress()
        watch.tick()
    with pytest.raises(Ended):  # it would have ended, had they not gone on
        tick(watch, 20)


def test_no_hang_is_looked_for_before_the_first_step():
    watch = Watch(Stop(), Lone(), 0.05, end)
    tick(watch, 20)
    watch.progress()
    with pytest.raises(Ended):
        tick(watch, 20)


@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_a_wish_to_stop_reaches_the_other_process(number):
    (first, second), (mine, other), _ = pair()
    mine.heard(number)
    first.look()
    assert not other
    second.look()
    assert other
    assert other.status == mine.status == (75 if number is None else 143)


def test_a_process_that_falls_silent_is_taken_for_lost():
    (first, second), _, _ = pair()
    for _ in range(8):
        tick(first, 1)
        tick(second, 1)
    with pytest.raises(Ended, match=r"process 1 no longer answers. Run the same command again") as ended:
        tick(first, 200)
    assert ended.value.args[1] == 75


def test_a_process_that_dies_before_its_first_sign_of_life_is_taken_for_lost():
    (first, _), _, _ = pair()
    with pytest.raises(Ended, match="process 1 no longer answers"):
        tick(first, 200)


def test_a_coordination_service_that_is_gone_ends_the_run():
    (_, second), _, hosts = pair()

    def refuse(*arguments):
        raise jax.errors.JaxRuntimeError("UNAVAILABLE")

    hosts[1].publish = hosts[1].published = refuse
    with pytest.raises(Ended, match="process 0 no longer answers"):
        tick(second, 20)


def test_a_coordination_service_that_never_answers_ends_the_run(monkeypatch):
    (_, second), _, _ = pair()
    monkeypatch.setattr(second, "look", lambda: None)  # waits in its thread
    with pytest.raises(Ended, match="process 0 no longer answers") as ended:
        tick(second, 200)
    assert ended.value.args[1] == 75


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (UserError("an image is cut off"), "an image is cut off", 1),
        (TryAgain("a host is gone"), "a host is gone", 75),
        (KeyboardInterrupt(), "KeyboardInterrupt", 1),
    ],
)
def test_an_error_in_one_process_ends_the_others_with_its_message(error, said, status):
    (first, second), _, hosts = pair()
    hosts[0].publish("left/1", "")  # so that the first need not wait
    first.failed(error)
    with pytest.raises(Ended, match=f"process 0 ended: {said}") as ended:
        second.look()
    assert ended.value.args[1] == status
    first.look()  # says what it has to say itself


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_a_connection_that_breaks_is_no_mistake_of_the_user(kind):
    (first, _), _, hosts = pair()
    hosts[0].publish("left/1", "")
    with (
        pytest.raises(TryAgain, match=r"broke off \(UNKNOWN: peer is gone\). Run the same command again"),
        watching(first, hosts[0]),
    ):
        raise kind("UNKNOWN: peer is gone\nand much more")
    assert not hosts[0].ended


def test_any_other_error_stays_what_it_is():
    (first, _), _, hosts = pair()
    hosts[0].publish("left/1", "")
    with pytest.raises(ValueError, match="a shape"), watching(first, hosts[0]):
        raise ValueError("a shape")


def test_processes_part_when_all_are_done():
    (first, _), _, hosts = pair()
    with watching(first, hosts[0]):
        pass
    assert hosts[0].ended
