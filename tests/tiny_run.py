"""A run of milliseconds for the tests, in process or as a child of its own."""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.training.errors import RunError
from modal_aware_jax.training.loop import fit
from modal_aware_jax.training.optimizer import adam_l2
from modal_aware_jax.training.update import init_state, make_update, split_model

IDS = [f"pair{i}" for i in range(64)]


class Net(nnx.Module):
    def __init__(self, *, rngs):
        self.layers = nnx.List(
            [nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)]
        )
        self.norm = nnx.BatchNorm(8, rngs=rngs)

    def __call__(self, x, *, train):
        x = self.norm(self.layers[0](x), use_running_average=not train)
        return self.layers[1](jnp.tanh(x))


class Batches:
    """Endless batches of 8; `bad` holds NaN; `wait` seconds each."""

    def __init__(self, *, bad=None, fails=None, wait=0.0):
        self.bad, self.fails, self.wait, self.next = bad, fails, wait, 0

    def __iter__(self):
        self.next = 0
        return self

    def __next__(self):
        time.sleep(self.wait)
        if self.next == self.fails:
            raise FileNotFoundError("/data/photos/im7.jpg")
        rng = np.random.default_rng(self.next)
        self.next += 1
        x = rng.normal(size=(8, 4)).astype(np.float32)
        if self.next - 1 == self.bad:
            x[3] = np.nan
        return {"x": x, "index": rng.integers(0, 64, 8)}

    def get_state(self):
        return {"next": self.next}

    def set_state(self, state):
        self.next = state["next"]


def loss_fn(model, batch, key):
    noise = 0.1 * jax.random.normal(key, (8, 2))
    return jnp.mean((model(batch["x"], train=True) - noise) ** 2)


def new_state(seed=0, tx=None):
    tx = tx or adam_l2(0.01)
    graphdef, params, stats = split_model(Net(rngs=nnx.Rngs(seed)))
    return graphdef, init_state(params, stats, tx), tx


_UPDATE = []


def run(workdir, batches=None, *, num_epochs=4, seed=0, **options):
    graphdef, state, tx = new_state(seed)
    if not _UPDATE:  # compiled once for all tests
        _UPDATE.append(make_update(graphdef, loss_fn, tx))
    return fit(
        _UPDATE[0],
        state,
        Batches() if batches is None else batches,
        workdir=workdir,
        key=jax.random.key(5),
        num_epochs=num_epochs,
        ids=IDS,
        **{"steps_per_epoch": 10, "log_steps": 5, **options},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--wait", type=float, default=0.0)
    parser.add_argument("--checkpoint_steps", type=int)
    flags = parser.parse_args()
    try:
        run(
            flags.workdir,
            Batches(wait=flags.wait),
            checkpoint_steps=flags.checkpoint_steps,
        )
    except RunError as error:
        print(error)
        sys.exit(error.exit_code)
