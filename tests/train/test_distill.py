"""A run that learns from a teacher: what the teacher sees and says, and that it is no part of the run."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxnets.data.absolute import with_absolute_paths
from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.distill import Distillation, divergence
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
from jaxnets.recipe.recipe import Recipe
from jaxnets.run.directory import RunDirectory
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from jaxnets.train.mesh import over_data, replicated
from jaxnets.train.step import init_state, make_train_step
from jaxnets.train.teacher import Teacher, brought, open_teacher
from tests.train.runs import arrays_of, rows_of, short
from tests.train.test_step import PREPROCESS, assert_close, batch_at, tiny

DIGITS = tuple("0123456789")
# Another normalisation, size and number of channels than the student's.
OTHER = Preprocess(height=12, width=10, channels=3, mean=(0.2, 0.5, 0.4), std=(0.3, 0.2, 0.4))


def made(dtype=jnp.float32, preprocess=OTHER, order=(2, 0, 3, 1)):
    """Returns a teacher of four classes that was not trained."""
    model = tiny(dtype)
    plain = Recipe(loss=SoftmaxCrossEntropy(), optimizer=optax.sgd(0.1), schedule=lambda step: 0.1)
    variables = init_state(model, preprocess, plain, 5).variables
    variables = jax.tree.map(lambda x: np.asarray(x) * 2, variables)
    return Teacher(model=model, variables=variables, preprocess=preprocess, order=order, said="a teacher")


def taught(teacher, dtype=jnp.float32, micro_batches=1, **fields):
    """Returns a step and its first state."""
    distillation = Distillation(logits=teacher.logits, temperature=2.0, weight=0.7, task_weight=0.3)
    recipe = Recipe(
        loss=SoftmaxCrossEntropy(), optimizer=optax.sgd(0.1), schedule=lambda step: 0.1, distillation=distillation
    )
    model = tiny(dtype, **fields)
    step = make_train_step(model, PREPROCESS, recipe, seed=0, micro_batches=micro_batches)
    state = jax.jit(lambda: init_state(model, PREPROCESS, recipe, 0))()
    return step, replace(state, teacher=teacher.variables)


def test_the_teacher_sees_the_student_s_images_normalised_its_own_way_and_says_it_in_the_student_s_order():
    teacher, image = made(), batch_at(0).image
    seen = np.asarray(brought(image, OTHER))
    x = (seen / 255 - np.array(OTHER.mean)) / np.array(OTHER.std)
    expected = jax.jit(teacher.model.apply)(teacher.variables, jnp.asarray(x, jnp.float32))
    found = jax.jit(teacher.logits)(teacher.variables, image)
    np.testing.assert_allclose(found, expected[:, [2, 0, 3, 1]], atol=1e-5)


@pytest.mark.parametrize(("size", "limit"), [((40, 30), 1), ((9, 7), 1)])
def test_images_are_brought_to_another_size_as_pillow_resizes_them(size, limit):
    image = np.random.default_rng(0).integers(0, 256, (2, 20, 16, 3), np.uint8)
    found = np.asarray(brought(jnp.asarray(image), replace(OTHER, height=size[0], width=size[1])), int)
    resized = [Image.fromarray(each).resize(size[::-1], Image.Resampling.BILINEAR) for each in image]
    assert np.abs(found - np.stack([np.asarray(each, int) for each in resized])).max() <= limit


def test_colours_become_grey_as_pillow_converts_them_and_grey_becomes_colours():
    image = np.random.default_rng(0).integers(0, 256, (2, 12, 10, 3), np.uint8)
    grey = brought(jnp.asarray(image), replace(OTHER, channels=1, mean=(0.5,), std=(0.5,)))
    np.testing.assert_array_equal(grey[1, ..., 0], np.asarray(Image.fromarray(image[1]).convert("L")))
    np.testing.assert_array_equal(brought(grey, OTHER), np.repeat(grey, 3, -1))


def test_the_loss_is_that_of_the_labels_and_of_the_teacher():
    teacher = made()
    step, state = taught(teacher)
    _, sums = jax.jit(step)(state, batch_at(0))

    @jax.jit
    def expected(variables, image, label):
        x = PREPROCESS.normalise(image, jnp.float32)
        logits, _ = tiny().apply(variables, x, train=True, mutable=["batch_stats"])
        task = SoftmaxCrossEntropy()(logits, jnp.eye(4)[label])
        return (0.3 * task + 0.7 * divergence(logits, teacher.logits(teacher.variables, image), 2.0)).sum()

    np.testing.assert_allclose(sums["loss"], expected(state.variables, batch_at(0).image, batch_at(0).label), rtol=1e-5)


def test_micro_batches_on_eight_devices_learn_the_same_of_the_teacher_as_a_batch_on_one(enable_x64, eight_devices):
    teacher = made(jnp.float64)
    found = []
    for micro_batches, mesh in ((1, None), (2, eight_devices)):
        step, state = taught(teacher, jnp.float64, micro_batches, norm_group_size=8)
        batch = batch_at(0)
        if mesh is not None:
            state, batch = jax.device_put(state, replicated(mesh)), jax.device_put(batch, over_data(mesh))
        compiled = jax.jit(step)
        for _ in range(2):
            state, _ = compiled(state, batch)
        found.append(jax.device_get(state))
    assert_close(found[1].variables, found[0].variables, 1e-9)
    assert_close(found[0].teacher, teacher.variables, 0)


def test_the_teacher_is_an_argument_of_the_program_and_not_in_it():
    teacher = made()
    step, state = taught(teacher)

    def largest(function):
        return max((np.size(x) for x in jax.make_jaxpr(function)(state, batch_at(0)).consts), default=0)

    weights = max(x.size for x in jax.tree.leaves(teacher.variables))
    assert largest(step) < weights
    assert largest(lambda state, batch: step(replace(state, teacher=teacher.variables), batch)) >= weights


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("teacher") / "run"
    train(short(), workdir, Display(quiet=True), one_device)
    return workdir


def student(teacher, **changed):
    ema = {"decay": 0.9, "warmup": "timm", "every_steps": 3, "timm": {"after_steps": 2}}
    config = {"log_every_steps": 4, "ema": ema, "mix": {"mixup": 0.2}, **changed}
    return short(distill={"teacher": str(teacher), "task_weight": 0.5}, **config)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, teacher_run, one_device):
    workdir = tmp_path_factory.mktemp("student") / "run"
    train(student(teacher_run, steps=8), workdir, Display(quiet=True), one_device)
    return workdir


def test_a_run_goes_on_to_the_bits_of_the_uninterrupted_one_through_distillation_and_an_average_s_warm_up(
    tmp_path, teacher_run, whole, one_device
):
    moved = shutil.copytree(teacher_run, tmp_path / "moved")
    train(student(teacher_run, steps=4), tmp_path / "parts", Display(quiet=True), one_device)
    train(student(moved, steps=8), tmp_path / "parts", Display(quiet=True), one_device)  # it may lie elsewhere
    first, second = (arrays_of(workdir, 8) for workdir in (whole, tmp_path / "parts"))
    assert first.keys() == second.keys()
    assert [key for key in first if not np.array_equal(first[key], second[key])] == []
    whole_rows, rows = ([row for row in rows_of(w) if "test/loss" not in row] for w in (whole, tmp_path / "parts"))
    assert rows == whole_rows


def test_a_run_notes_its_teacher_and_saves_nothing_of_it(whole, teacher_run):
    noted = json.loads((whole / "config.json").read_text())["distill"]
    assert noted["teacher"] == str(teacher_run)
    assert noted["teacher_weights"] == open_teacher(student(teacher_run), DIGITS).checksum
    assert {path.name for path in (whole / "checkpoints" / "8").iterdir() if path.is_dir()} == {
        *("variables", "ema", "optimizer", "progress")
    }
    plain, own = arrays_of(teacher_run, 4), arrays_of(whole, 8)
    assert sum("params" in key for key in own) == 2 * sum("'raw'" in key and "params" in key for key in plain)


def test_a_run_does_not_go_on_with_another_teacher_or_none(tmp_path, whole, teacher_run, one_device):
    workdir = shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(
        UserError, match=r"another run:\n.*distill\.teacher: .*\n.*distill\.teacher_weights: '\w+' there"
    ):
        train(student(whole, steps=12), workdir, Display(quiet=True), one_device)
    with pytest.raises(UserError, match=r"teacher .*gone cannot be opened.*needs its teacher until its last step"):
        train(student(tmp_path / "gone", steps=12), workdir, Display(quiet=True), one_device)
    config = student(teacher_run)
    config = replace(config, distill=replace(config.distill, teacher_weights="12ab"))
    with pytest.raises(UserError, match=r"has other weights \(\w+\) than config\.distill\.teacher_weights \(12ab\)"):
        open_teacher(config, DIGITS)


def renamed(teacher_run, target, names):
    """Returns a copy of a run whose classes are called otherwise."""
    run = RunDirectory(shutil.copytree(teacher_run, target))
    run.write_model(replace(run.read_model(), class_names=tuple(names)))
    return run.path


def test_classes_in_another_order_are_found_by_their_names(tmp_path, teacher_run):
    order = [3, 1, 0, 2, 9, 8, 7, 6, 5, 4]
    other = renamed(teacher_run, tmp_path / "run", [DIGITS[i] for i in order])
    assert open_teacher(student(other), DIGITS).order == tuple(order.index(i) for i in range(10))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["zero", *DIGITS[1:]],
            r"the data's class 0, '0', is none of the teacher's, where its class 0 is 'zero'.*order",
        ),
        (DIGITS[:9], r"it has 9 and the data 10\): the data's class 9, '9', is none of the teacher's\. Give"),
        ([*DIGITS, "ten"], r"the teacher's class 10, 'ten', is none of the data's\. Give"),
        ([*DIGITS, "3"], r"several of the teacher's are called '3'"),
    ],
)
def test_a_teacher_of_other_classes_is_refused_with_the_first_that_differs(tmp_path, teacher_run, names, expected):
    with pytest.raises(UserError, match=expected):
        open_teacher(student(renamed(teacher_run, tmp_path / "run", names)), DIGITS)


def test_classes_may_be_taken_in_their_order(tmp_path, teacher_run):
    config = student(renamed(teacher_run, tmp_path / "run", [f"n{name}" for name in DIGITS]))
    by_order = replace(config, distill=replace(config.distill, classes="order"))
    assert open_teacher(by_order, DIGITS).order == tuple(range(10))
    with pytest.raises(UserError, match="it has 10 and the data 3"):
        open_teacher(by_order, DIGITS[:3])


def test_several_labels_have_no_teacher(teacher_run):
    with pytest.raises(UserError, match=r"several labels: leave config\.distill out"):
        open_teacher(student(teacher_run), DIGITS, several_labels=True)


@pytest.mark.parametrize("before", ["", "name=", "resnet8_cifar@", "name=resnet8_cifar@"])
def test_the_path_of_a_teacher_means_the_same_from_anywhere(tmp_path, monkeypatch, before):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    assert with_absolute_paths(student(f"{before}w.pth")).distill.teacher == f"{before}{tmp_path / 'w.pth'}"
    assert with_absolute_paths(student("resnet50")).distill.teacher == "resnet50"
