"""What a run shows, and that it does not depend on somebody who looks."""

import os

from jaxnets.train.display import Display


def test_a_reader_that_hangs_up_does_not_end_the_run(monkeypatch, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        display = Display()
        display.say("stopping: the run is saved first")
        display.say("saved")  # into nothing
    assert display._console.quiet
