import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets.errors import UserError
from jaxnets.run.checkpoints import Progress, choose, read_progress, read_variables, steps
from jaxnets.train.mesh import replicated
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState

OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def state_at(step: int, ema: bool = False) -> TrainState:
    params = {"head": {"kernel": jnp.full((3, 2), float(step))}}
    statistics = {"norm": {"mean": jnp.arange(4.0) * step}}
    average = jax.tree.map(lambda x: x + 1, {"params": params, "batch_stats": statistics}) if ema else None
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats=statistics,
        opt_state=OPTIMIZER.init(params),
        ema=average,
    )


def save(directory: Path, *saved: int, best: int | None = None, ema: bool = False) -> None:
    checkpointer = Checkpointer(directory)
    for step in saved:
        known = {"step": best, "accuracy": 0.5} if best is not None and step >= best else None
        checkpointer.save(state_at(step, ema), Progress(step=step, best=known, window={"steps": step}))
    checkpointer.close()


def shapes(ema: bool = False, sharding=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state_at(0, ema))


def restore(directory: Path, mesh, ema: bool = False):
    return Checkpointer(directory).restore(lambda step: shapes(ema, replicated(mesh)))


def cut_short(directory: Path, step: int) -> None:
    for file in (directory / str(step) / "variables" / "d").iterdir():
        os.truncate(file, file.stat().st_size // 2)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("ema", [False, True])
def test_what_is_restored_is_what_was_saved(tmp_path, one_device, ema):
    save(tmp_path, 7, ema=ema)
    state, progress = restore(tmp_path, one_device, ema)
    assert_same(state, state_at(7, ema))
    assert progress == Progress(step=7, window={"steps": 7})


# What TensorStore and Orbax take for patterns, slashes and addresses, and what else a file system allows.
NAMES = [
    "exp [v2]",
    "[!a]*?**",
    "**",
    "back\\slash\\",
    "gs:",
    "file:|zip:",
    "-x ~{lr}=1e-3,#50%20;'\"<&>$HOME`|^ ",
    "line\nbreak\t\r\x7f",
    "e\u0301 \xe9 日本 😀 \u202e",
    "not UTF-8 \udcff",
    "~",
    "5.orbax-checkpoint-tmp",
    "/".join(["x" * 255] * 12),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_directory_may_have_any_name(tmp_path, one_device, name):
    directory = tmp_path / name / "checkpoints"
    save(directory, 7, 8, ema=True)
    state, progress = restore(directory, one_device, ema=True)
    assert_same(state, state_at(8, ema=True))
    assert progress == read_progress(directory, 8) == Progress(step=8, window={"steps": 8})
    moved = directory.rename(tmp_path / "plain")
    assert_same(read_variables(moved, 7, "ema"), jax.device_get(state_at(7, ema=True).ema))


@pytest.mark.parametrize("name", NAMES[:6], ids=ascii)
def test_a_run_may_be_moved_to_any_name(tmp_path, name):
    save(tmp_path / "plain", 7)
    (tmp_path / name).mkdir(parents=True)
    moved = (tmp_path / "plain").rename(tmp_path / name / "checkpoints")
    assert_same(read_variables(moved, 7, "raw"), jax.device_get(state_at(7).variables))


def test_a_link_leads_to_what_it_names(tmp_path, one_device):
    (tmp_path / "exp [v2]").mkdir()
    (tmp_path / "link [1]").symlink_to("exp [v2]")
    save(tmp_path / "link [1]", 7)
    state, _ = restore(tmp_path / "exp [v2]", one_device)
    assert_same(state, state_at(7))


def test_a_name_that_needs_a_link_where_none_can_be_made_is_refused_before_anything_is_saved(tmp_path, monkeypatch):
    (tmp_path / "t[m]p").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t[m]p"))
    with pytest.raises(UserError, match=r"set TMPDIR to another"):
        Checkpointer(tmp_path / "exp [v2]")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"exp \[v2\]' must be linked to .* \(No such file or directory\): give it"):
        Checkpointer(tmp_path / "exp [v2]")
    save(tmp_path / "plain", 1)


def test_a_state_saved_on_eight_devices_opens_on_one_and_the_reverse(tmp_path, one_device, eight_devices):
    for here, there in ((eight_devices, one_device), (one_device, eight_devices)):
        directory = tmp_path / str(here.size)
        checkpointer = Checkpointer(directory)
        checkpointer.save(jax.device_put(state_at(3), replicated(here)), Progress(step=3))
        checkpointer.close()
        state, _ = restore(directory, there)
        assert len(state.step.sharding.device_set) == there.size
        assert_same(jax.device_get(state), jax.device_get(state_at(3)))


def test_there_is_nothing_to_restore_before_the_first_save(tmp_path, one_device):
    assert restore(tmp_path, one_device) is None


def test_the_two_newest_and_the_best_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3, 4, 5, best=2)
    assert steps(tmp_path) == [2, 4, 5]


def test_a_save_that_fails_costs_no_checkpoint(tmp_path, one_device, monkeypatch):
    save(tmp_path, 2, 4, 6, best=2)

    def fail(self):
        raise OSError("disk full")

    monkeypatch.setattr(Checkpointer, "_seal", fail)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.restore(lambda step: shapes(sharding=replicated(one_device)))
    checkpointer.save(state_at(8), Progress(step=8, best={"step": 8, "accuracy": 0.9}))
    with pytest.raises(UserError, match="disk full"):
        checkpointer.wait()
    checkpointer.close()
    assert steps(tmp_path) == [2, 4, 6]
    assert choose(tmp_path, "best") == 2


def test_best_newest_and_a_step_are_found(tmp_path):
    save(tmp_path, 1, 2, 3, 4, best=2)
    assert [choose(tmp_path, name) for name in ("best", "newest", 3, "3")] == [2, 4, 3, 3]


def test_best_is_the_newest_where_nothing_was_held_out(tmp_path):
    save(tmp_path, 1, 2)
    assert choose(tmp_path, "best") == 2


@pytest.mark.parametrize("wrong", ["9", "latest", "-1"])
def test_an_unknown_checkpoint_is_refused_with_those_there_are(tmp_path, wrong):
    save(tmp_path, 1, 2)
    with pytest.raises(UserError, match=r"one of the saved steps \(1, 2\), found"):
        choose(tmp_path, wrong)


def test_variables_are_read_without_the_optimizer(tmp_path):
    save(tmp_path, 4, ema=True)
    assert_same(read_variables(tmp_path, 4, "raw"), jax.device_get(state_at(4).variables))
    assert_same(read_variables(tmp_path, 4, "ema"), jax.device_get(state_at(4, ema=True).ema))


def test_raw_weights_stand_in_where_no_average_was_kept(tmp_path):
    save(tmp_path, 4)
    assert_same(read_variables(tmp_path, 4, "ema"), jax.device_get(state_at(4).variables))


def test_a_checkpoint_cut_short_is_set_aside_and_the_one_before_is_used(tmp_path, one_device, caplog):
    save(tmp_path, 1, 2)
    cut_short(tmp_path, 2)
    state, progress = restore(tmp_path, one_device)
    assert (progress.step, int(state.step)) == (1, 1)
    assert steps(tmp_path) == [1]
    assert (tmp_path / "damaged-2").is_dir()
    assert "is damaged" in caplog.text


def test_a_changed_byte_is_noticed(tmp_path):
    save(tmp_path, 1)
    file = max((tmp_path / "1" / "variables" / "d").iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        read_variables(tmp_path, 1, "raw")


def test_checkpoints_that_can_none_be_read_are_refused(tmp_path, one_device):
    save(tmp_path, 1, 2)
    for step in (1, 2):
        cut_short(tmp_path, step)
    with pytest.raises(UserError, match=r"all checkpoints in .* are damaged"):
        restore(tmp_path, one_device)
    assert steps(tmp_path) == [1, 2]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / "5.orbax-checkpoint-tmp" / "variables").mkdir(parents=True)
    save(tmp_path, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["6"]


def test_weights_that_are_not_finite_are_refused_and_the_last_good_ones_kept(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(state_at(1), Progress(step=1))
    broken = state_at(2)
    broken.params["head"]["kernel"] = jnp.full((3, 2), jnp.nan)
    with pytest.raises(UserError, match="weights after step 2 are not finite"):
        checkpointer.save(broken, Progress(step=2))
    checkpointer.close()
    assert steps(tmp_path) == [1]


def test_progress_is_read_by_itself(tmp_path):
    save(tmp_path, 3, best=3)
    assert read_progress(tmp_path, 3).best == {"step": 3, "accuracy": 0.5}
