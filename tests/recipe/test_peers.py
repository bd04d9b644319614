"""Optimizers and schedules beside those of PyTorch, timm and the authors, over 60 steps on random tensors.

`make_peers.py` says how the numbers to compare with were made.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets.config import resolve
from jaxnets.models.family import Structure
from jaxnets.recipe.optimizer.table import make_optimizer
from jaxnets.recipe.schedule.table import make_momentum, make_schedule
from tests.recipe.make_peers import _NOISE, CASES, DATA, RATES, STEPS, gradient, share, start

STRUCTURE = Structure(stem=("stem",), stages={"stage1": (("block",), ("gate",))}, head="head")
PEERS = np.load(DATA)


def trained(name: str, keys: dict, steps: int = STEPS) -> dict:
    spec = resolve({"optimizer": keys}).optimizer
    peak, momentum = spec.learning_rate, None
    shares = jnp.asarray([share(step) for step in range(STEPS)])

    def rate(step):
        return peak * shares[step]

    if name.endswith("_one_cycle"):
        schedule = resolve({"schedule": {"name": "one_cycle"}}).schedule
        rate, momentum = make_schedule(schedule, peak, STEPS, 7.5), make_momentum(schedule, STEPS, 7.5)
    optimizer = make_optimizer(spec, rate, RATES, peak=peak, momentum=momentum, structure=STRUCTURE)
    params = unflatten_dict({path: jnp.asarray(w, jnp.float32) for path, w in start().items()})
    noise = [
        unflatten_dict({path: gradient(step, path, np.zeros_like(w)) for path, w in start().items()})
        for step in range(steps)
    ]

    def step(carry, noise):
        params, state = carry
        slope = jax.tree.map(lambda w, g: 0.1 * w + g, params, noise)
        change, state = optimizer.update(slope, state, params)
        return (optax.apply_updates(params, change), state), None

    stacked = jax.tree.map(lambda *each: jnp.asarray(np.stack(each), jnp.float32), *noise)
    (params, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), stacked))(params)
    return params


@pytest.mark.parametrize("name", CASES)
def test_an_optimizer_leads_where_its_peer_does(name):
    found = flatten_dict(trained(name, CASES[name]))
    flat = np.concatenate([np.ravel(found[path]) for path in start()])
    assert _NOISE.shape[1] == flat.size
    np.testing.assert_allclose(flat, PEERS[name], rtol=0, atol=1e-5)
