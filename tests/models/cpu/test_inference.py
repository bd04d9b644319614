import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.models.cpu.inference import in_blocks


def per_image(images):
    return jnp.stack([images.sum((1, 2, 3)), images.max((1, 2, 3))], -1)


@pytest.mark.parametrize("batch", [1, 4, 6, 12])
def test_blocks_give_what_the_whole_batch_gives(batch):
    images = np.random.default_rng(0).integers(0, 256, (batch, 3, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(lambda x: in_blocks(per_image, x))(images), per_image(images))


def test_a_cpu_sees_four_images_at_a_time():
    seen = []

    def noting(images):
        seen.append(images.shape[0])
        return per_image(images)

    program = jax.jit(lambda x: in_blocks(noting, x)).lower(np.zeros((8, 3, 2, 3), np.float32)).compile().as_text()
    assert 4 in seen
    assert "while" in program  # what a CPU runs is the loop over them
