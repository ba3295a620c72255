"""The run of tiny_run.py by several processes together: each is a child of a test."""

import argparse
import sys

import jax
import numpy as np
import optax
from tiny_run import IDS, Batches, loss_fn, new_state

from modal_aware_jax.training import devices, processes
from modal_aware_jax.training.errors import RunError
from modal_aware_jax.training.loop import fit
from modal_aware_jax.training.update import make_update


class Share(Batches):
    """This process's rows of every batch of 8."""

    def __next__(self):
        batch = super().__next__()
        number, count = devices.share()
        rows = 8 // count
        return {k: v[number * rows : (number + 1) * rows] for k, v in batch.items()}


def run(flags):
    mesh = devices.device_mesh()
    # Adam would blow up the rounding in the bias before the batch norm: its gradient
    # is zero.
    graphdef, state, tx = new_state(tx=optax.sgd(0.05, momentum=0.9))
    where = devices.state_shardings(state, mesh, 8)
    fails = flags.fails if jax.process_index() == 1 else None
    return fit(
        make_update(graphdef, loss_fn, tx, shardings=(where, devices.by_rows(mesh))),
        devices.put(state, where),
        Share(wait=flags.wait, fails=fails),
        workdir=flags.workdir,
        key=devices.key_of(5, mesh),
        num_epochs=4,
        steps_per_epoch=10,
        validate=lambda state: {"map": float(state.step) / 100},
        ids=IDS,
        place=lambda batch: devices.put_batch(batch, mesh),
        checkpoint_steps=7,
        log_steps=5,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    parser.add_argument("--wait", type=float, default=0.0)
    parser.add_argument("--fails", type=int)
    flags = parser.parse_args()
    if flags.coordinator:
        processes.start(flags.coordinator, flags.num_processes, flags.process_id)
    try:
        fitted = run(flags)
    except RunError as error:
        print(error)
        sys.exit(error.exit_code)
    if processes.is_first():
        leaves = jax.tree.leaves_with_path(fitted.state)
        arrays = {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}
        np.savez(f"{flags.workdir}/final.npz", **arrays)
