import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import UserError, create_model
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.describe import describe
from jaxnets.models.layers import BatchNorm
from jaxnets.models.statistics import Norm, check_statistics
from tests import tiny


def network(kind, **fields):
    name, own = tiny.FAMILIES[kind]
    return create_model(name, **own, **fields)


def trained(model, images, size):
    """Traces a training step's forward pass."""
    x = jnp.zeros((images, *size, 1))
    with plain_convolutions():
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
        return jax.eval_shape(
            lambda v: model.apply(v, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}),
            variables,
        )


# Images whose last stage is one pixel.
@pytest.mark.parametrize(
    ("kind", "size", "images", "fields", "layer"),
    [
        ("cifar", (2, 2), 1, {}, "stage2_block1/norm1"),
        ("cifar", (2, 1), 8, {"norm_group_size": 1}, "stage2_block1/norm1"),
        ("imagenet", (8, 5), 1, {"remat_stages": 2}, "stage2_block1/norm1"),
        ("preactivated", (8, 8), 4, {"norm_group_size": 1}, "stage2_block1/norm3"),
        ("lite", (8, 8), 1, {}, "stage3_block1/depthwise_norm"),
        ("efficientnet", (7, 8), 2, {"norm_group_size": 1}, "stage3_block1/depthwise_norm"),
    ],
)
def test_a_norm_of_one_value_is_refused_with_its_layer(kind, size, images, fields, layer):
    model = network(kind, **fields)
    message = rf"the norm {layer} would see one value .* config\.batch_size .* config\.batch_norm\.group_size"
    with pytest.raises(UserError, match=message):
        trained(model, images, size)
    with pytest.raises(UserError, match=message):
        check_statistics(describe(model, *size, 1).norms, fields.get("norm_group_size", images))


@pytest.mark.parametrize(("images", "size"), [(2, (2, 2)), (1, (3, 2))])
def test_a_norm_of_two_values_is_trained(images, size):
    model = network("cifar")
    assert min(norm.height * norm.width * images for norm in describe(model, *size, 1).norms) == 2
    logits, changed = trained(model, images, size)
    assert logits.shape == (images, model.num_classes)
    assert changed["batch_stats"]


def test_making_and_evaluating_a_network_asks_for_no_statistics():
    x = jnp.zeros((1, 1, 1, 3))
    variables = BatchNorm(train=True).init(jax.random.key(0), x)
    y = BatchNorm(train=False).apply(variables, x + 2)  # one value, of which there is no variance
    np.testing.assert_allclose(y, 2 / np.sqrt(1 + BatchNorm.epsilon), rtol=1e-6)


@pytest.mark.parametrize(("images", "warned"), [(2, "2 values"), (15, "15 values"), (16, None), (128, None)])
def test_few_values_are_warned_of_once_for_the_smallest_norm(images, warned):
    norms = [Norm("early", 4, 4), Norm("late", 1, 1), Norm("later", 1, 1)]
    warning = check_statistics(norms, images)
    if warned is None:
        assert warning is None
    else:
        assert f"the norm late sees {warned}" in warning


def test_pixels_count_as_images_do():
    assert check_statistics([Norm("last", 7, 7)], 1) is None
    assert "4 values of each channel while training (1 image of 2×2 pixels)" in check_statistics(
        [Norm("last", 2, 2)], 1
    )
    assert check_statistics([], 1) is None
