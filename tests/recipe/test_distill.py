import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.recipe.distill import Distillation, divergence

_DRAWN = np.random.default_rng(7)
STUDENT = _DRAWN.normal(0, 3, (60, 6)).astype(np.float32)
_DRAWN.dirichlet(np.ones(6) * 0.5, 60)
TEACHER = _DRAWN.normal(0, 3, (60, 6)).astype(np.float32)


# torch 2.13: T² · F.kl_div(log_softmax(student / T), log_softmax(teacher / T), "batchmean", log_target=True), timm's.
@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 2.85658802), (4.0, 6.20650160)])
def test_the_divergence_is_that_of_torch_and_timm(temperature, expected):
    found = divergence(STUDENT, TEACHER, temperature)
    assert found.shape == (60,)
    np.testing.assert_allclose(found.mean(), expected, rtol=1e-6)


def test_the_gradient_is_that_of_the_cross_entropy_with_the_teacher_s_probabilities():
    gradient = jax.grad(lambda s: divergence(s, TEACHER, 2.0).sum())(STUDENT)
    p, q = (jax.nn.softmax(x / 2) for x in (TEACHER, STUDENT))
    np.testing.assert_allclose(gradient, 2.0 * (q - p), atol=1e-5)


def test_nothing_is_learned_by_the_teacher():
    gradient = jax.grad(lambda t: divergence(jnp.asarray(STUDENT), t, 2.0).sum())(TEACHER)
    np.testing.assert_array_equal(gradient, 0)


def test_the_loss_is_the_sum_of_both_terms_by_their_weights():
    kind = Distillation(logits=lambda variables, image: image, temperature=2.0, weight=0.7, task_weight=0.3)
    task = jnp.arange(60, dtype=jnp.float32)
    expected = 0.3 * task + 0.7 * divergence(STUDENT, TEACHER, 2.0)
    np.testing.assert_allclose(kind(task, STUDENT, TEACHER), expected, rtol=1e-6)


def test_it_is_finite_where_logits_are_far_apart():
    far = jnp.array([[80.0, -80.0]])
    value, gradient = jax.value_and_grad(lambda s: divergence(s, far, 1.0).sum())(-far)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
