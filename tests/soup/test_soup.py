"""Soups of checkpoints: which are taken, what their statistics are, and what is written."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets
from jaxnets.errors import UserError
from jaxnets.recipe.augment.flip import Flip
from jaxnets.recipe.freeze import Frozen
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
from jaxnets.recipe.mix import Mix
from jaxnets.recipe.recipe import Recipe
from jaxnets.run.checkpoints import read_progress, read_variables, steps
from jaxnets.run.directory import RunDirectory, read_json, write_json
from jaxnets.soup.recipe import choose, mean
from jaxnets.soup.statistics import make_statistics, with_statistics
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from jaxnets.train.step import init_state, make_prepare, step_key
from tests.train.runs import rows_of, short
from tests.train.test_step import PREPROCESS, assert_close, batch_at, tiny

# Scores of ingredients, and of the averages of some.
SINGLES = [0.5, 0.9, 0.8, 0.7]
MIXED = {(1, 2): 0.95, (1, 2, 3): 0.9, (1, 2, 0): 0.95, (1, 2, 3, 0): 0.6}


def chosen(recipe, mixed=MIXED):
    return choose(SINGLES, lambda numbers: mixed[tuple(numbers)], lambda score: (score, 0.0), recipe)


def test_a_greedy_soup_adds_from_the_best_on_what_validation_does_not_lose_by():
    soup = chosen("greedy")  # 3 is left out, and 0 stays, between equals
    assert (soup.used, soup.judged) == ((1, 2, 0), 0.95)


def test_a_uniform_soup_takes_all_where_that_is_better():
    assert chosen("uniform", {(1, 2, 3, 0): 0.91}).used == (1, 2, 3, 0)
    assert chosen("uniform").used == (1,)


def test_where_no_average_is_better_the_best_stands_alone():
    soup = chosen("greedy", {(1, 2): 0.9, (1, 2, 3): 0.9, (1, 2, 3, 0): 0.9})
    assert (soup.used, soup.judged) == ((1,), 0.9)


def test_the_mean_of_trees_is_added_up_in_float64():
    trees = [{"w": np.full(3, value, np.float32)} for value in (1e8, 1.0, -1e8)]
    found = mean(trees)["w"]
    np.testing.assert_allclose(found, 1 / 3)
    assert found.dtype == np.float32


RECIPE = Recipe(
    loss=SoftmaxCrossEntropy(),
    optimizer=optax.sgd(0.1),
    schedule=lambda step: 0.1,
    ops=(Flip(horizontal=0.5),),
    mix=Mix(mixup=0.4),
)


def test_statistics_are_the_mean_of_those_of_each_batch_augmented_and_mixed(enable_x64):
    """Against the running statistics that follow each batch for itself, solved for what it added to them."""
    model = tiny(jnp.float64, norm_decay=0.8)
    variables = init_state(model, PREPROCESS, RECIPE, 0).variables
    found = with_statistics(
        variables, jax.jit(make_statistics(model, PREPROCESS, RECIPE, seed=4)), [batch_at(i) for i in range(3)]
    )
    prepare = make_prepare(RECIPE, 4, 4)

    @jax.jit
    def followed(batch, number):
        key = step_key(4, number)
        x = PREPROCESS.normalise(prepare(batch, number).image, jnp.float64)
        return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})[1]["batch_stats"]

    old = variables["batch_stats"]
    each = [jax.tree.map(lambda a, b: (b - 0.8 * a) / 0.2, old, followed(batch_at(i), np.int32(i))) for i in range(3)]
    assert_close(found["batch_stats"], jax.tree.map(lambda *x: sum(x) / 3, *each), 1e-9)
    assert found["params"] is variables["params"]


def test_frozen_norms_keep_their_statistics_to_the_bit():
    model, frozen = tiny(), Frozen(layers=frozenset({"stem_norm", "stage1_block1"}))
    variables = init_state(model, PREPROCESS, RECIPE, 0).variables
    drawn = np.random.default_rng(0)
    stats = jax.tree.map(lambda x: drawn.uniform(0.5, 1, x.shape).astype(np.float32), variables["batch_stats"])
    variables = {**variables, "batch_stats": stats}
    statistics = jax.jit(make_statistics(model, PREPROCESS, RECIPE, seed=4, frozen=frozen))
    found = with_statistics(variables, statistics, [batch_at(i) for i in range(3)])["batch_stats"]
    kept = {layer for layer in stats if jax.tree.all(jax.tree.map(np.array_equal, found[layer], stats[layer]))}
    assert kept == set(frozen.layers) & set(stats)
    assert kept < set(stats)


@pytest.fixture(scope="module")
def run(tmp_path_factory, one_device):
    """A run that keeps three checkpoints, of steps 4, 8 and 12."""
    workdir = tmp_path_factory.mktemp("soup") / "run"
    train(
        short(steps=12, keep_checkpoints=3, data={"validation": 0.3}),
        workdir,
        Display(quiet=True),
        one_device,
    )
    return workdir


@pytest.fixture(scope="module")
def souped(tmp_path_factory, run):
    out = tmp_path_factory.mktemp("soup") / "out"
    return out, jaxnets.soup(run, out, recipe="uniform", batches=2)


def test_a_run_keeps_as_many_checkpoints_as_asked_for(run):
    assert steps(run / "checkpoints") == [4, 8, 12]


def test_a_soup_is_a_run_directory_that_says_what_is_in_it(run, souped):
    out, report = souped
    assert read_json(out / "soup.json") == json.loads(json.dumps(report))
    used = [one["step"] for one in report["ingredients"] if one["used"]]
    assert report["gained"] == (len(used) == 3)
    assert (report["batches"], len(report["ingredients"])) == (2, 3)
    best = max(one["validation"]["accuracy"] for one in report["ingredients"])
    assert report["validation"]["accuracy"] >= best
    classifier = jaxnets.load(out, engine="jax")
    assert classifier.step == max(used)
    progress = read_progress(out / "checkpoints", classifier.step)
    assert progress.best["accuracy"] == report["validation"]["accuracy"]
    assert [row["eval/split"] for row in rows_of(out)] == ["validation"]  # and nothing of the test split
    params = [read_variables(run / "checkpoints", step, "ema")["params"] for step in used]
    assert_close(classifier.variables["params"], mean(params), 1e-6)


def test_a_soup_scores_as_an_evaluation_of_it(souped):
    out, report = souped
    assert jaxnets.evaluate(out, split="validation")["accuracy"] == report["validation"]["accuracy"]


def test_a_training_goes_on_from_a_soup(tmp_path, souped, one_device):
    out = shutil.copytree(souped[0], tmp_path / "out")
    outcome = train(short(steps=13, keep_checkpoints=3, data={"validation": 0.3}), out, Display(quiet=True), one_device)
    assert (outcome.step, outcome.finished) == (13, True)


def changed(run, target, **fields):
    """Returns a copy of a run whose model.json says otherwise."""
    copy = RunDirectory(shutil.copytree(run, target))
    copy.write_model(replace(copy.read_model(), **fields))
    return copy.path


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "resnet20_cifar"}, r"two architectures, resnet8_cifar and resnet20_cifar"),
        ({"class_names": tuple("1023456789")}, r"classes are in another order; class 0 is '0' in one and '1' in"),
        ({"class_names": tuple("012345678x")}, r"classes differ; class 9 is '9' in one and 'x' in the other"),
        ({"data": {"train": 1, "validation": 2, "test": 3}}, r"their data differs .*one config\.seed draws one"),
        ({"several_labels": True}, r"images of one have several labels"),
    ],
)
def test_checkpoints_that_do_not_go_together_are_refused(tmp_path, run, fields, expected):
    other = changed(run, tmp_path / "other", **fields)
    with pytest.raises(UserError, match=expected):
        jaxnets.soup([run, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_networks_and_images_that_differ_are_refused_with_what_differs(tmp_path, run):
    card = RunDirectory(run).read_model()
    other = changed(run, tmp_path / "other", fields={**card.fields, "shortcut": "B"})
    with pytest.raises(UserError, match="their networks differ in shortcut, the model's own and B"):
        jaxnets.soup([run, other], tmp_path / "out")
    other = changed(run, tmp_path / "wide", preprocess=replace(card.preprocess, crop_fraction=0.5))
    with pytest.raises(UserError, match=r"they see images differently: crop_fraction is 1\.0 and 0\.5"):
        jaxnets.soup([run, other], tmp_path / "out")


def test_a_soup_needs_two_checkpoints_a_validation_split_and_an_empty_place(tmp_path, run):
    with pytest.raises(UserError, match=r"two checkpoints at least, and here is one.*config\.keep_checkpoints=10"):
        jaxnets.soup([run, run], tmp_path / "out", checkpoints="best")
    with pytest.raises(UserError, match="is not empty: give another --out"):
        jaxnets.soup(run, run)
    with pytest.raises(UserError, match="recipe must be one of greedy, uniform, found 'best'"):
        jaxnets.soup(run, tmp_path / "out", recipe="best")
    whole = RunDirectory(shutil.copytree(run, tmp_path / "whole"))
    config, card = read_json(whole.config), read_json(whole.model)
    config["data"]["validation"] = 0.0
    sizes = card["data"]
    write_json(whole.config, config)
    write_json(whole.model, {**card, "data": {"train": sizes["train"] + sizes["validation"], "test": sizes["test"]}})
    with pytest.raises(UserError, match=r"judged on a validation split.*train with --config\.data\.validation=0\.1"):
        jaxnets.soup(whole.path, tmp_path / "out")
