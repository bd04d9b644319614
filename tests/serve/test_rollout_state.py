"""What follows from what was counted of a candidate, on paper; where it is kept, and what the command line may say."""

import argparse
import threading
import time

import pytest

from jaxnets.errors import UserError
from jaxnets.serve.limits import Keys
from jaxnets.serve.rollout.counts import Counts, Tally
from jaxnets.serve.rollout.options import Options, Pair, add_options, read_options
from jaxnets.serve.rollout.state import Bounds, Place, State, counted, judged, missing
from jaxnets.serve.rollout.store import FILE, Store
from jaxnets.serve.source import Source, Split
from tests.serve.fakes import FakePredictor, fake_app

BOUNDS = Bounds(window=10, requests=100)


def tally(count, failures=0, seconds=0.01):
    found = Tally()
    for number in range(count):
        found.note(None if number < failures else seconds)
    return found


def paused():
    """Returns a hundred requests of which one met a pause."""
    found = tally(99)
    found.note(1.0)
    return found


def counts(candidate, *, stable=None, copies=None, disagreed=0):
    return Counts(stable=stable or tally(1000), candidate=candidate, copies=copies or tally(100), disagreed=disagreed)


def state(of=None, **changed):
    places = {name: Place(name=name, path=name, checkpoint="best") for name in ("old", "new")}
    given = {"kind": "canary", "phase": "canary", "stable": places["old"], "candidate": places["new"], "given": "x"}
    return State(**{**given, "since": 0.0, "counts": of or Counts(), **changed})


def test_a_step_needs_its_time_its_requests_and_its_comparisons():
    for found, now, waits in (
        (counts(tally(100)), 9, "1 s"),
        (counts(tally(99)), 10, "1 requests"),
        (counts(tally(100), copies=tally(98)), 10, "2 comparisons"),
    ):
        assert judged(state(found), BOUNDS, now) == state(found)
        assert missing(state(found), BOUNDS, now) == waits
    further = judged(state(counts(tally(100))), BOUNDS, 10)
    assert (further.phase, further.step, further.share(BOUNDS), further.epoch) == ("canary", 1, 0.05, 1)
    assert not further.counts


def test_after_the_last_step_it_is_promoted_unless_that_is_less_than_all():
    found = counts(tally(100))
    assert judged(state(found, step=4), BOUNDS, 10).phase == "promoted"
    half = Bounds(window=10, steps=(0.1, 0.5))
    assert judged(state(found, step=1), half, 10).phase == "canary"


@pytest.mark.parametrize(
    ("found", "bound"),
    [
        (counts(tally(100, failures=2)), "errors"),
        (counts(tally(10, failures=10)), "errors"),  # long before it has its requests
        (counts(tally(100, seconds=0.016)), "latency"),
        (counts(tally(5), disagreed=11), "disagreement"),
        (counts(tally(5), copies=tally(10), disagreed=10), "disagreement"),
    ],
)
def test_a_crossed_bound_sends_it_back_and_says_why(found, bound):
    back = judged(state(found), BOUNDS, 1)
    assert (back.phase, back.bound, back.share(BOUNDS)) == ("rolled back", bound, 0.0)
    assert back.counts == found
    assert back.reason


@pytest.mark.parametrize(
    "found",
    [
        counts(tally(100, failures=1)),
        counts(tally(100, failures=5), stable=tally(1000, failures=50)),  # the old one fails as often
        counts(tally(10, failures=1)),
        counts(tally(9, failures=9)),
        counts(tally(100, seconds=0.014)),
        counts(tally(99, seconds=1.0)),
        counts(paused()),
        counts(tally(5), disagreed=10),
        counts(tally(5), copies=tally(0)),
    ],
)
def test_within_its_bounds_it_goes_on(found):
    assert judged(state(found), BOUNDS, 1).phase == "canary"


def test_the_old_model_s_latency_is_remembered_where_it_has_no_requests_any_more():
    further = judged(state(counts(tally(100)), step=3), BOUNDS, 10)
    slow = counts(tally(100, seconds=0.1), stable=Tally())
    assert judged(counted(further, slow, further.epoch), BOUNDS, 11).bound == "latency"


def test_what_was_counted_before_a_change_does_not_count_after_it():
    found = state(epoch=3)
    assert counted(found, counts(tally(9)), 2) == found
    assert counted(counted(found, counts(tally(9)), 3), counts(tally(1)), 3).counts.candidate.requests == 10
    assert found.counts == Counts()


def test_the_p99_is_that_of_the_slowest_hundredth():
    found = tally(990, seconds=0.01)
    for _ in range(11):
        found.note(0.5)
    assert found.p99 == pytest.approx(0.5, rel=0.15)
    assert tally(1000, seconds=0.01).p99 == pytest.approx(0.01, rel=0.15)
    assert (Tally().p99, Tally().mean, tally(3, failures=3).mean) == (None, None, None)
    assert tally(1, seconds=1e9).p99 > 60


def test_a_state_is_read_as_it_was_written(tmp_path):
    kept = state(counts(tally(100, failures=3)), usual=tally(7), bound="errors", reason="«why»", phase="rolled back")
    Store(tmp_path).change(lambda states: {"pets": kept})
    assert Store(tmp_path).change(lambda states: states) == {"pets": kept}


def test_stores_of_one_folder_see_each_other_s_changes(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    one.change(lambda states: {"pets": state()})

    def more(states):
        return {name: counted(each, counts(tally(1)), each.epoch) for name, each in states.items()}

    for store in (one, other, one):
        found = store.change(more)
    assert found["pets"].counts.candidate.requests == 3


def test_stores_that_change_at_once_lose_nothing(tmp_path):
    Store(tmp_path).change(lambda states: {"pets": state()})

    def more(states):
        found = counted(states["pets"], counts(tally(1)), 0)
        time.sleep(0)  # to the other one
        return {"pets": found}

    def change():
        store = Store(tmp_path)
        for _ in range(40):
            store.change(more)

    threads = [threading.Thread(target=change) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Store(tmp_path).change(lambda states: states)["pets"].counts.candidate.requests == 120


def test_without_room_a_process_goes_on_alone(tmp_path, caplog):
    store = Store(tmp_path / "state")
    store.change(lambda states: {"pets": state()})
    (tmp_path / "state" / FILE).write_text("{")
    for _ in range(2):
        found = store.change(lambda states: {**states, "more": state()})
    assert set(found) == {"pets", "more"}
    assert caplog.text.count("this process decides alone") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "names": {"a": {}}}', "\udcff"])
def test_a_file_that_is_not_ours(tmp_path, text):
    (tmp_path / FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="does not say how far models have taken over"):
        Store(tmp_path)


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="nothing can be kept there"):
        Store(tmp_path / "file")


def read(*arguments, keys=None):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return read_options(parser.parse_args(arguments), keys or Keys())


def test_what_the_command_line_says():
    options, admin = read(
        "--canary", "pets=a,b", "--canary-steps", "10%, 100", "--canary-errors", "0", "--shadow", "a=b"
    )
    assert options.bounds == Bounds(steps=(0.1, 1.0), errors=0)
    assert (options.canaries[0].stable, options.shadows[0].candidate) == ("a", "b")
    assert not admin


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--shadow", "a"), "must be NAME=CANDIDATE"),
        (("--shadow", "a=a"), "its own shadow"),
        (("--shadow", "a=b,c"), "must be NAME=CANDIDATE"),
        (("--canary", "x=a"), "must be NAME=A,B"),
        (("--canary", "x=a,a"), "cannot take over from itself"),
        (("--canary", "x=a:0.5,b:0.5"), "must be NAME=A,B"),
        (("--canary-steps", "1,150"), "up to 100, found '1,150'"),
        (("--canary-steps", "0,1"), "above 0"),
        (("--canary-steps", "5,5"), "that grow"),
        (("--canary-steps", "nan"), "must be percentages"),
        (("--canary-steps", "some"), "must be percentages like"),
        (("--canary-window", "-1"), "--canary-window must be"),
        (("--canary-window", "nan"), "--canary-window must be"),
        (("--canary-requests", "0"), "--canary-requests must be at least 1"),
        (("--canary-errors", "1.5"), "--canary-errors must be a share"),
        (("--canary-compare", "nan"), "--canary-compare must be a share"),
        (("--canary-latency", "0"), "--canary-latency must be more than 0"),
        (("--shadow-time", "0"), "--shadow-time must be"),
        (("--candidates", "/no/such/folder"), "is no folder"),
        (("--admin-key-file", "/no/such/file"), "cannot be read"),
    ],
)
def test_what_the_command_line_may_not_say(arguments, says):
    with pytest.raises(UserError, match=says):
        read(*arguments)


def test_a_file_without_admin_keys_or_with_ordinary_ones(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# none\n\n")
    with pytest.raises(UserError, match="leave --admin-key-file out"):
        read("--admin-key-file", str(file))
    file.write_text("one\ntwo\n")
    with pytest.raises(UserError, match="is one of --api-key-file too"):
        read("--admin-key-file", str(file), keys=Keys(["two"]))


@pytest.mark.parametrize(
    ("options", "splits", "says"),
    [
        (Options(shadows=[Pair.shadow("a=c")]), [], "--shadow a names 'c', which is not served"),
        (Options(canaries=[Pair.canary("x=a,c")]), [], "--canary x names 'c'"),
        (Options(canaries=[Pair.canary("x=a,b")]), [Split.parse("x=a:0.5,b:0.5")], "one of --split already"),
        (Options(canaries=[Pair.canary("x=a,b")] * 2), [], "has a candidate already"),
        (Options(canaries=[Pair.canary("a=a,b")], shadows=[Pair.shadow("a=b")]), [], "has a candidate already"),
        (Options(canaries=[Pair.canary("b=a,b")]), [], "which is not the old one"),
    ],
)
def test_names_that_do_not_go_together(options, splits, says):
    sources = [Source(name=name, path=name) for name in ("a", "b")]
    with pytest.raises(UserError, match=says):
        options.check(sources, splits)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"labels": ("cat",)}, "new cannot take over from old: it has 1 classes, and alone 'cat', and old 10 classes"),
        ({"several_labels": True}, "it has several labels an image"),
    ],
)
def test_a_candidate_of_other_classes(changed, says):
    other = {"new": FakePredictor(**changed)}
    with pytest.raises(UserError, match=says):
        fake_app("old", "new", rollout=Options(shadows=[Pair.shadow("old=new")]), made=other)
