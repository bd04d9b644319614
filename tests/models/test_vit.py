import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import UserError, create_model
from jaxnets.models import vit
from jaxnets.models.attention import attend, attention_weights
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.describe import _by_shapes, _by_tracing, size
from jaxnets.models.registry import family_of
from jaxnets.models.vit.network import ViT, three_xavier_uniform
from jaxnets.models.vit.position import resampling_matrix
from tests import tiny

# Parameters as timm 1.0.31 has them, and multiply-adds for one image: those of the convolution, the dense layers and
# both products of attention, as torchvision 0.29.1 counts them (17.564 B for ViT-B/16, 15.378 B for ViT-L/32).
SIZES = {
    "vit_tiny_patch16_224": (5_717_416, 1_253_683_200),
    "vit_tiny_patch16_384": (5_790_376, 4_682_219_520),
    "vit_small_patch32_224": (22_878_952, 1_142_909_952),
    "vit_small_patch32_384": (22_915_432, 3_442_900_992),
    "vit_small_patch16_224": (22_050_664, 4_598_882_304),
    "vit_small_patch16_384": (22_196_584, 15_490_351_104),
    "vit_base_patch32_224": (88_224_232, 4_409_186_304),
    "vit_base_patch32_384": (88_297_192, 13_043_564_544),
    "vit_base_patch16_224": (86_567_656, 17_563_828_224),
    "vit_base_patch16_384": (86_859_496, 55_484_350_464),
    "vit_large_patch32_224": (306_535_400, 15_377_539_072),
    "vit_large_patch32_384": (306_632_680, 45_275_963_392),
    "vit_large_patch16_224": (304_326_632, 61_554_712_576),
    "vit_large_patch16_384": (304_715_752, 191_066_300_416),
    "vit_base_patch16_gap_224": (86_566_120, 17_471_649_792),
    "deit_tiny_patch16_224": (5_717_416, 1_253_683_200),
    "deit_small_patch16_224": (22_050_664, 4_598_882_304),
    "deit_base_patch16_224": (86_567_656, 17_563_828_224),
    "deit_base_patch16_384": (86_859_496, 55_484_350_464),
    "deit3_small_patch16_224": (22_059_496, 4_598_882_304),
    "deit3_small_patch16_384": (22_205_416, 15_490_351_104),
    "deit3_medium_patch16_224": (38_849_512, 7_990_968_320),
    "deit3_base_patch16_224": (86_585_320, 17_563_828_224),
    "deit3_base_patch16_384": (86_877_160, 55_484_350_464),
    "deit3_large_patch16_224": (304_374_760, 61_554_712_576),
    "deit3_large_patch16_384": (304_763_880, 191_066_300_416),
    "vit_tiny_patch4_32": (5_362_762, 365_107_584),
}
X = np.random.default_rng(0).normal(size=(2, 33, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def plainly():
    """The plain form of convolutions and attention compiles fastest; the fused one is compared with it below."""
    with plain_convolutions():
        yield


def network(kind: str = "vit", **fields) -> ViT:
    name, own = tiny.FAMILIES[kind]
    return create_model(name, num_classes=3, **{**own, **fields})


def test_every_registered_model_has_stated_sizes():
    assert set(vit.FAMILY.entries) == set(SIZES)


def sizes_of(model: ViT) -> tuple[int, int]:
    """The numbers of the papers' layers, written out: what a network is not needed for."""
    c, patches = model.width, math.prod(model.grid)
    tokens, pixels = patches + model.class_token, 3 * math.prod(model.patch)
    dense = 3 * c * c + c * c + 2 * model.expand * c * c
    block = dense + (3 + 1 + model.expand + 1) * c + 2 * 2 * c + (0 if model.layer_scale is None else 2 * c)
    embeddings = (model.class_token + patches + (model.class_token and model.token_position)) * c
    head = (c + 1) * model.num_classes
    return (
        pixels * c + c + embeddings + sum(model.blocks) * block + 2 * c + head,
        patches * pixels * c + sum(model.blocks) * (tokens * dense + 2 * tokens**2 * c) + c * model.num_classes,
    )


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_multiply_adds_are_exactly_as_many_as_the_originals(name):
    assert sizes_of(create_model(name)) == SIZES[name]


@pytest.mark.parametrize("name", ["vit_base_patch32_384", "vit_base_patch16_gap_224", "deit3_small_patch16_224"])
def test_the_networks_have_the_sizes_of_their_layers(name):
    model = create_model(name)
    assert size(model, *(side * pixels for side, pixels in zip(model.grid, model.patch, strict=True))) == SIZES[name]


@pytest.mark.parametrize("kind", ["vit", "deit3", "averaged"])
def test_a_network_that_is_traced_as_it_is_gives_the_same_description(kind):
    image = jax.ShapeDtypeStruct((1, 33, 32, 2), jnp.float32)
    assert _by_tracing(network(kind), image) == _by_shapes(network(kind), image)


# torch 2.13.0: interpolate(x[None, None], (r, c), mode="bicubic", antialias=True), as timm 1.0.31's
# resample_abs_pos_embed calls it, for x of 3 × 4 below.
GRID = np.sin(np.arange(12.0) ** 2).reshape(3, 4)
RESAMPLED: dict[tuple[int, int], list[list[float]]] = {
    (5, 4): [
        [0.021729, 0.914967, -0.739068, 0.515203],
        [-0.155067, 0.522184, -0.860955, -0.154384],
        [-0.287903, -0.132352, -0.991779, -0.953753],
        [0.483458, -0.498983, -0.687144, 0.252801],
        [1.011191, -0.667438, -0.469731, 1.146179],
    ],
    (2, 3): [[0.095242, -0.170478, -0.399618], [0.254348, -0.658095, 0.015952]],
    (1, 2): [[-0.012125, -0.333275]],
}


@pytest.mark.parametrize("shape", RESAMPLED)
def test_position_embeddings_are_interpolated_as_timm_does(shape):
    rows, columns = (resampling_matrix(old, new) for old, new in zip(GRID.shape, shape, strict=True))
    np.testing.assert_allclose(rows @ GRID @ columns.T, RESAMPLED[shape], atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(14, 14), (14, 24), (24, 14), (1, 5), (7, 1)])
def test_interpolation_keeps_what_is_the_same_everywhere(old, new):
    matrix = resampling_matrix(old, new)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)
    if old == new:
        np.testing.assert_allclose(matrix, np.eye(old), atol=1e-12)


def formula(qkv: np.ndarray, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Attention's weights and result, head after head."""
    b, n, _ = qkv.shape
    parts = [part.reshape(b, n, heads, -1) for part in np.split(qkv, 3, -1)]
    weights, results = [], []
    for q, k, v in zip(*(np.moveaxis(part, 2, 0) for part in parts), strict=True):
        scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]))
        weights.append(scores / scores.sum(-1, keepdims=True))
        results.append(weights[-1] @ v)
    return np.stack(weights, 1), np.concatenate(results, -1)


QKV = np.random.default_rng(0).normal(size=(2, 5, 3 * 12))


def test_attention_is_that_of_the_formula_in_float64(enable_x64):
    weights, expected = formula(QKV, 3)
    np.testing.assert_allclose(jax.jit(attend, static_argnums=1)(jnp.asarray(QKV), 3), expected, rtol=1e-12)
    np.testing.assert_allclose(attention_weights(jnp.asarray(QKV), 3), weights, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_attention_and_its_gradient_are_those_of_jax(dtype, tolerance):
    qkv, weight = jnp.asarray(QKV, dtype), jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 12)), dtype)

    def theirs(qkv):
        q, k, v = (part.reshape(2, 5, 3, 4) for part in jnp.split(qkv, 3, -1))
        return jax.nn.dot_product_attention(q, k, v).reshape(2, 5, 12)

    def both(function):
        result, pull = jax.vjp(function, qkv)
        return result, pull(weight)[0]

    with jax.numpy_dtype_promotion("standard"):  # theirs asks for it
        expected = jax.jit(lambda: both(theirs))()
    for found, same in zip(jax.jit(lambda: both(partial(attend, heads=3)))(), expected, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(np.float32(found), np.float32(same), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "fused"), [(jnp.bfloat16, True), (jnp.float32, False), (jnp.float64, False)])
def test_a_gpu_is_asked_for_its_fused_kernel_in_half_precision(dtype, fused, monkeypatch, enable_x64):
    asked = []

    def kernel(q, k, v, implementation):
        asked.append(implementation)
        return v

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    monkeypatch.setattr("jaxnets.models.attention.only_plain", lambda: False)
    assert jax.eval_shape(lambda qkv: attend(qkv, 3), jax.ShapeDtypeStruct((2, 5, 36), dtype)).shape == (2, 5, 12)
    assert set(asked) == ({"cudnn"} if fused else set())


def test_a_gpu_without_the_kernel_gets_the_plain_form(monkeypatch):
    """No GPU is here: cuDNN's checks refuse, as they do on one that is too old."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr("jaxnets.models.attention.only_plain", lambda: False)
    qkv = jnp.asarray(QKV, jnp.bfloat16)
    np.testing.assert_allclose(np.float32(attend(qkv, 3)), formula(QKV, 3)[1], atol=5e-2)


def test_what_the_head_sees_is_the_class_token_or_the_average():
    variables = tiny.live(network("vit"), tiny.SEEN)
    token = network("vit").apply(variables, X, method="embed")
    assert np.abs(token - network("vit", pool="average").apply(variables, X, method="embed")).max() > 0.1
    averaged, after = network("averaged"), network("averaged", norm_after_pool=True)
    variables = tiny.live(averaged, tiny.SEEN)
    features = averaged.apply(variables, X, method="features")["stage2"].reshape(2, 12, -1)
    own = variables["params"]["last_norm"]

    def norm(x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * own["scale"] + own["bias"]

    for model, expected in ((averaged, norm(features).mean(1)), (after, norm(features.mean(1)))):
        np.testing.assert_allclose(model.apply(variables, X, method="embed"), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="without a class token has none to pool"):
        network("averaged", pool="token").apply(variables, X)


def test_every_token_and_every_parameter_has_a_hand_in_the_logits():
    model = network("deit3")
    variables = tiny.live(model, tiny.SEEN)
    gradient = jax.jit(jax.grad(lambda v, x: (model.apply(v, x) ** 2).sum(), argnums=(0, 1)))(variables, jnp.asarray(X))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        # A key's bias adds the same to all scores of a query, which softmax takes away.
        dead = np.asarray(leaf == 0)
        assert not dead.any() or "qkv" in str(path), path


def test_no_position_embedding_of_the_class_token_in_deit3():
    rows, columns = network("deit3").grid
    for kind, first in (("vit", 1), ("deit3", 0), ("averaged", 0)):
        assert tiny.live(network(kind), tiny.SEEN)["params"]["position"]["embedding"].shape[1] == rows * columns + first


def test_images_of_another_size_keep_the_parameters_and_interpolate_their_places():
    model = network("vit")
    variables = tiny.live(model, tiny.SEEN)
    small = model.apply(variables, X[:, :22, :16], method="features")
    assert small["stage2"].shape == (2, 2, 2, model.width)
    rows, columns = resampling_matrix(3, 2), resampling_matrix(4, 2)
    position = variables["params"]["position"]["embedding"][0, 1:].reshape(3, 4, -1)
    whole = model.clone(grid=(2, 2))
    own = np.einsum("ri,cj,ijf->rcf", rows, columns, position).reshape(1, 4, -1)
    first = variables["params"]["position"]["embedding"][:, :1]
    changed = {
        "params": {**variables["params"], "position": {"embedding": np.concatenate([first, own.astype(np.float32)], 1)}}
    }
    np.testing.assert_allclose(
        model.apply(variables, X[:, :22, :16]), whole.apply(changed, X[:, :22, :16]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (34, 32, "images of 34×32 pixels are not of whole patches of 11×8: take 33×32 or 44×40"),
        (33, 7, "take 33×8 or 44×8"),
        (8, 8, r"take 11×8 .*config\.data\.image_size"),
    ],
)
def test_images_that_the_patches_do_not_divide_are_refused(height, width, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(network("vit").init, jax.random.key(0), jnp.zeros((1, height, width, 3)))


def test_a_new_network_has_position_embeddings_for_its_training_images():
    fields = vit.FAMILY.entries["vit_tiny_patch16_224"].fields
    assert vit.FAMILY.fields_of_size(fields, 64, 96) == {"grid": [4, 6]}
    with pytest.raises(UserError, match="take 64×96 or 80×112"):
        vit.FAMILY.fields_of_size(fields, 65, 96)


def test_queries_keys_and_values_are_drawn_as_three_layers():
    kernel = three_xavier_uniform(jax.random.key(0), (256, 3 * 256), jnp.float32)
    assert np.abs(kernel).max() == pytest.approx(np.sqrt(6 / 512), rel=1e-3)


def test_stochastic_depth_leaves_out_whole_branches_of_some_examples():
    model = network("vit", stochastic_depth=0.5, blocks=(1, 1), dropout=0.0)
    variables = tiny.live(model, tiny.SEEN)
    x = np.repeat(X[:1], 64, 0)
    features = jax.jit(partial(model.apply, method="features"), static_argnames="train")
    drawn = features(variables, x, train=True, rngs={"dropout": jax.random.key(0)})
    whole = features(variables, x[:1])
    np.testing.assert_allclose(drawn["stage1"], np.repeat(whole["stage1"], 64, 0), rtol=1e-4, atol=1e-4)
    different = np.unique(np.asarray(drawn["stage2"])[:, 0, 0, 0].round(3))
    assert len(different) == 4  # of two branches, each there or not


def test_recomputed_blocks_give_the_same_gradient():
    variables = tiny.live(network("vit", blocks=(1, 1)), tiny.SEEN)

    def gradient(stages: int):
        model = network("vit", remat_stages=stages, blocks=(1, 1))
        return jax.jit(jax.grad(lambda v: (model.apply(v, X, train=True) ** 2).sum()))(variables)

    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, gradient(0), gradient(2))


def test_the_last_norm_goes_with_the_head_where_it_comes_after_the_average():
    for model, last in ((network("vit"), ("stage2_block2", "last_norm")), (network("averaged"), None)):
        *_, block, head = family_of(model).structure(model).groups()
        assert last is None or block == last
        assert head == ("head",)
    *_, head = family_of(network()).structure(network("averaged", norm_after_pool=True)).groups()
    assert head == ("last_norm", "head")
