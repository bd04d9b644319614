"""What a config freezes of a network, when it thaws, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import create_model
from jaxnets.config import resolve
from jaxnets.config_check import without_effect
from jaxnets.errors import UserError
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.registry import family_of
from jaxnets.recipe.freeze import FreezeConfig, Frozen, frozen_layers, join, plan_freezing, split, summary
from tests import tiny

MODEL = create_model(tiny.FAMILIES["efficientnet"][0], num_classes=3, **tiny.FAMILIES["efficientnet"][1])
STRUCTURE = family_of(MODEL).structure(MODEL)
STEM, ONE, TWO = {"stem_conv", "stem_norm"}, {"stage1_block1", "stage1_block2"}, {"stage2_block1"}
THREE, FOUR = {"stage3_block1", "stage3_block2"}, {"stage4_block1", "top_conv", "top_norm"}


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ({}, set()),
        ({"before": "stage2"}, STEM | ONE),
        ({"before": "head"}, STEM | ONE | TWO | THREE | FOUR),
        ({"before": "stage3_block2"}, STEM | ONE | TWO | {"stage3_block1"}),
        ({"before": "top_conv"}, STEM | ONE | TWO | THREE | {"stage4_block1"}),
        ({"layers": ("stage2",)}, TWO),
        ({"layers": ("stage[12]", "top_*")}, ONE | TWO | {"top_conv", "top_norm"}),
        ({"layers": ("*_norm",)}, {"stem_norm", "top_norm"}),
        ({"before": "stage1", "layers": ("head",)}, STEM | {"head"}),
    ],
)
def test_stages_and_patterns_name_the_layers_that_are_frozen(spec, layers):
    assert frozen_layers(FreezeConfig(**spec), STRUCTURE) == layers


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"before": "stage9"}, "(stem, stage1, stage2, stage3, stage4, head), found 'stage9' (did you mean 'stage"),
        ({"before": "Head"}, "found 'Head' (did you mean 'head'?)"),
        ({"before": ""}, "config.freeze.before must be a stage or a layer"),
        ({"before": "stem"}, "'stem' freezes nothing, as no layer lies before it"),
        ({"layers": ("stge1_*",)}, "'stge1_*' matches no stage and no layer (did you mean 'stage1'?)"),
        ({"layers": ("stage1", "blocks.0")}, "'blocks.0' matches no stage and no layer; the stages are stem, stage1"),
        ({"layers": ("stage1_block1/norm1",)}, "(did you mean 'stage1_block1'?)"),
        ({"layers": ("*",)}, "the head too, so that nothing would train"),
        ({"before": "head", "layers": ("head",)}, "the head too, so that nothing would train"),
    ],
)
def test_what_names_no_layer_or_leaves_nothing_is_refused(spec, said):
    with pytest.raises(UserError) as error:
        frozen_layers(FreezeConfig(**spec), STRUCTURE)
    assert said in str(error.value)


def thaws(**spec):
    """Returns which layers have thawed after each of the steps at which some do; an epoch has 10 steps."""
    plan = plan_freezing(FreezeConfig(**spec), STRUCTURE, steps_per_epoch=10)
    found, kept = {}, set(plan.at(0).layers)
    for step in plan.starts[1:]:
        assert plan.at(step - 1).layers == kept
        left = set(plan.at(step).layers) if plan.at(step) else set()
        found[step], kept = kept - left, left
    return found


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"before": "stage2"}, {}),
        ({"before": "stage2", "thaw_epoch": 1.5}, {15: STEM | ONE}),
        ({"before": "stage2", "thaw_epoch": 1.51}, {16: STEM | ONE}),  # when all of an epoch's examples were seen
        ({"before": "stage2", "thaw_epoch": 1e-9}, {1: STEM | ONE}),
        ({"before": "stage3", "stage_epochs": 2.0}, {20: TWO, 40: ONE, 60: STEM}),
        ({"before": "stage3", "stage_epochs": 2.0, "thaw_epoch": 3.0}, {20: TWO, 30: ONE | STEM}),
        ({"before": "stage3", "stage_epochs": 2.0, "thaw_epoch": 1.0}, {10: TWO | ONE | STEM}),
        (
            {"layers": ("top_*", "stage1_block2"), "stage_epochs": 1.0},
            {10: {"top_conv", "top_norm"}, 20: {"stage1_block2"}},
        ),
    ],
)
def test_what_is_frozen_thaws_at_its_epoch_or_stage_by_stage_from_the_head_back(spec, found):
    assert thaws(**spec) == found


@pytest.mark.parametrize(
    ("policy", "kept_params", "kept_stats"),
    [("frozen", True, True), ("statistics", True, False), ("train", False, False)],
)
def test_the_policy_says_what_of_the_batch_norms_stays(policy, kept_params, kept_stats):
    variables = tiny.live(MODEL, tiny.SEEN)
    changing, kept = split(Frozen(layers=frozenset(STEM | ONE), batch_norm=policy), variables)
    assert set(changing["params"]) >= TWO | THREE | FOUR | {"head"}
    assert "stem_conv" in kept["params"]
    assert ("stem_norm" in kept["params"], "stem_norm" in changing["params"]) == (kept_params, not kept_params)
    assert ("stem_norm" in kept.get("batch_stats", {}), "stem_norm" in changing["batch_stats"]) == (
        kept_stats,
        not kept_stats,
    )
    assert "kernel" in kept["params"]["stage1_block1"]["project_conv"]
    again = join(changing, kept)
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_everything_but_the_norms_can_be_frozen():
    spec = FreezeConfig(layers=("*",), batch_norm="train")
    changing, _ = split(plan_freezing(spec, STRUCTURE, 1.0).at(0), tiny.live(MODEL, tiny.SEEN))
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(changing["params"])}
    assert names == {"scale", "bias"}


def test_a_frozen_stage_computes_as_in_evaluation_and_the_rest_as_in_training():
    """Its noise is off too. Here the first two stages are computed again for the gradient, and norms have groups."""
    model = MODEL.clone(stochastic_depth=0.9, remat_stages=2, norm_group_size=2)
    variables, x = tiny.live(MODEL, tiny.SEEN), jnp.asarray(np.random.default_rng(0).normal(size=(4, 33, 32, 3)), "f4")

    def features(train):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, x, train=train, method="features", mutable=["batch_stats"], rngs=rngs)[0]

    frozen = Frozen(layers=frozenset(STEM | ONE | TWO))
    with plain_convolutions():
        evaluated, half, trained = jax.jit(lambda: [features(train) for train in (False, frozen.mode, True)])()
    for name in ("stem", "stage1", "stage2"):
        np.testing.assert_array_equal(half[name], evaluated[name])
        assert np.abs(half[name] - trained[name]).max() > 1e-3
    assert np.abs(half["stage3"] - evaluated["stage3"]).max() > 1e-3


def test_a_run_says_in_a_line_what_trains_now_and_later():
    params = tiny.live(MODEL, tiny.SEEN)["params"]
    plan = plan_freezing(FreezeConfig(before="stage3_block2", stage_epochs=2.0, thaw_epoch=5.0), STRUCTURE, 10)
    total = sum(x.size for x in jax.tree.leaves(params))
    late = sum(x.size for name in THREE - {"stage3_block1"} | FOUR | {"head"} for x in jax.tree.leaves(params[name]))
    assert summary(plan, STRUCTURE, params, 0, 45) == (
        f"1 of 2 layers of stage3, stage4, head: {late:,} of {total:,} parameters; the rest is frozen, its BatchNorm "
        f"too; stage3 trains from step 20; stage2 trains from step 40; all train from step 50, after the end"
    )
    assert summary(plan, STRUCTURE, params, 50, 60).endswith(f"head: {total:,} of {total:,} parameters")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"freeze": {"thaw_epoch": 1.0}}, "and nothing is frozen: set config.freeze.before as well"),
        ({"freeze": {"stage_epochs": 1.0}}, "and nothing is frozen: set config.freeze.before as well"),
        ({"epochs": 3, "freeze": {"before": "head", "thaw_epoch": 3}}, "thaw_epoch 3 is not before the end"),
        ({"epochs": 3, "freeze": {"before": "head", "stage_epochs": 4}}, "stage_epochs 4 is not before the end"),
        ({"freeze": {"before": "head", "thaw_epoch": 0}}, "config.freeze.thaw_epoch must be above 0"),
        ({"freeze": {"before": "head", "batch_norm": "off"}}, "must be one of frozen, statistics, train"),
        ({"freeze": {"layers": "stage1_*"}}, "config.freeze.layers must be tuple of names"),
    ],
)
def test_a_thaw_of_nothing_or_after_the_end_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        resolve(given)


def test_a_policy_for_norms_that_all_train_is_said_to_have_no_effect():
    assert without_effect(resolve({"freeze": {"batch_norm": "train"}})) == [
        "config.freeze.batch_norm has no effect: nothing is frozen"
    ]
    assert without_effect(resolve({"freeze": {"layers": ("stem",), "batch_norm": "train"}})) == []
