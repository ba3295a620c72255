"""Learning rates by part of the network: what a first step moves, and by how much."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from modal_aware_jax.experiment.optimizers import make_optimizer

PARTS = ("backbone", "block1", "block2", "text")


def first_step(**changes):
    config = ConfigDict(
        {
            "learning_rate": 1e-2,
            "backbone_learning_rate": 1e-3,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "decay_every_epochs": 20,
            "warmup_steps": 0,
        }
    )
    config.update(changes)
    tx = make_optimizer(config, 2, 10)
    params = {part: {"kernel": jnp.ones(3)} for part in PARTS}
    grads = jax.tree.map(lambda x: jnp.array([1.0, -2.0, 3.0]), params)
    updates, _ = tx.update(grads, tx.init(params), params)
    return {part: np.asarray(updates[part]["kernel"]) for part in PARTS}


@pytest.mark.parametrize("factor", [None, 1.0, 0.1, 0.0])
def test_blocks_learn_at_a_pace_of_their_own(factor):
    changes = {} if factor is None else {"block_learning_rate": factor}
    moved = first_step(**changes)
    # Adam's first step is the learning rate along the sign of the gradient.
    signs = np.array([-1, 1, -1])
    blocks = 1e-2 * (1.0 if factor is None else factor)
    rates = {"backbone": 1e-3, "block1": blocks, "block2": blocks, "text": 1e-2}
    for part, rate in rates.items():
        np.testing.assert_allclose(moved[part], rate * signs, rtol=1e-5)
