"""Train, evaluate with the last checkpoint, and write the report."""

import pathlib

import jax
import numpy as np

from modal_aware_jax.build import Experiment
from modal_aware_jax.data import pipeline, protocol
from modal_aware_jax.modes.encoder import Encoder, lower_maps
from modal_aware_jax.modes.evaluate import report_run
from modal_aware_jax.retrieval.metrics import mean_average_precision
from modal_aware_jax.training import update as updates
from modal_aware_jax.training.loop import fit


def train(experiment: Experiment, workdir: pathlib.Path) -> dict:
    """Trains to the end, from the last checkpoint where there is one.

    In the workdir: `split.json`, `checkpoints/`, `metrics.csv`, `tensorboard/` and
    `report/`.

    Returns:
      The evaluation of the test queries with the last checkpoint.
    """
    pairs, parts = experiment.collection, experiment.split
    workdir.mkdir(parents=True, exist_ok=True)
    protocol.save_split(workdir / "split.json", parts, pairs.ids)
    maps = lower_maps(experiment)
    if maps is None:
        batches = pipeline.train_batches(
            pairs,
            parts.train,
            batch_size=experiment.batch_size,
            image_size=experiment.image_size,
            seed=experiment.seed,
            workers=experiment.workers,
        )
    else:
        batches = pipeline.cached_train_batches(
            maps,
            pairs,
            parts.train,
            batch_size=experiment.batch_size,
            seed=experiment.seed,
        )
    steps_per_epoch = len(parts.train) // experiment.batch_size
    tx = experiment.make_optimizer(steps_per_epoch)
    graphdef, params, stats = updates.split_model(
        experiment.model, experiment.is_trained
    )
    encoder = Encoder(experiment, maps)
    searched = validation_database(parts, experiment.validation_database)

    def validate(state):
        variables = (state.params, state.stats)
        score = mean_average_precision(
            encoder(variables, parts.validation),
            encoder(variables, searched),
            pairs.labels[parts.validation],
            pairs.labels[searched],
            num_bits=experiment.num_bits,
        )
        return {"map": score}

    fitted = fit(
        updates.make_update(graphdef, experiment.loss, tx),
        updates.init_state(params, stats, tx),
        batches,
        workdir=workdir,
        key=jax.random.key(experiment.seed),
        num_epochs=experiment.num_epochs,
        steps_per_epoch=steps_per_epoch,
        validate=validate if len(parts.validation) else None,
        ids=pairs.ids,
        config=experiment.config,
        checkpoint_steps=experiment.checkpoint_steps,
    )
    variables = (fitted.state.params, fitted.state.stats)
    return report_run(experiment, encoder, variables, workdir, fitted.history)


def validation_database(parts: protocol.Split, size: int | None) -> np.ndarray:
    """What the validation queries search: the database without them, or some of it."""
    searched = np.setdiff1d(parts.database, parts.validation)
    if size is None or size >= len(searched):
        return searched
    chosen = np.random.RandomState(0).permutation(len(searched))[:size]
    return np.sort(searched[chosen])
