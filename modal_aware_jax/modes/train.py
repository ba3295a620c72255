"""Train, evaluate with the last checkpoint, and write the report."""

import pathlib

import jax

from modal_aware_jax.build import Experiment
from modal_aware_jax.data import pipeline, protocol
from modal_aware_jax.modes.encoder import Encoder, degraded_maps, lower_maps
from modal_aware_jax.modes.evaluate import report_run
from modal_aware_jax.modes.reading import keep_reading
from modal_aware_jax.training import devices
from modal_aware_jax.training import update as updates
from modal_aware_jax.training.loop import fit
from modal_aware_jax.training.processes import is_first
from modal_aware_jax.training.workdir import explain_write_errors


def train(experiment: Experiment, workdir: pathlib.Path) -> dict:
    """Trains to the end, from the last checkpoint where there is one.

    In the workdir: `split.json`, `checkpoints/`, `metrics.csv`, `tensorboard/` and
    `report/`. All devices of all processes take part; the first process writes.

    Returns:
      The evaluation of the test pairs with the last checkpoint; an empty dict in all
      processes but the first.
    """
    encoder, variables, history = fit_run(experiment, workdir)
    return report_run(experiment, encoder, variables, workdir, history)


def fit_run(experiment: Experiment, workdir: pathlib.Path):
    """Trains to the end, and leaves the test pairs alone.

    Returns:
      An encoder, the variables to give it, and a dict for each epoch.
    """
    pairs, parts = experiment.collection, experiment.split
    mesh = devices.device_mesh(experiment.tensor_parallel)
    devices.check_batch_size(experiment.batch_size, mesh)
    if experiment.batch_size > len(parts.train):
        raise ValueError(
            f"config.training.batch_size={experiment.batch_size}: there are "
            f"{len(parts.train)} pairs to train on (config.data.num_train). Take a "
            "batch that they fill."
        )
    if is_first():
        with explain_write_errors(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            keep_reading(experiment, workdir)  # first: it refuses another run's folder
            protocol.save_split(workdir / "split.json", parts, pairs.ids)
    maps = lower_maps(experiment)
    if experiment.solve is not None:
        experiment.solve(experiment.model, maps)
    if experiment.task.prepare:
        experiment.task.prepare(experiment, maps)
    if maps is None:
        as_it_is = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": False}
        batches = pipeline.train_batches(
            pairs,
            parts.train,
            batch_size=experiment.batch_size,
            image_size=experiment.image_size,
            seed=experiment.seed,
            workers=experiment.workers,
            degraded=experiment.degraded,
            share=devices.share(),
            **({} if experiment.augment else as_it_is),
        )
    else:
        others = degraded_maps(experiment)
        batches = pipeline.cached_train_batches(
            maps,
            pairs,
            parts.train,
            batch_size=experiment.batch_size,
            seed=experiment.seed,
            flip=experiment.augment,
            degraded=None if others is None else (others, experiment.degraded),
            share=devices.share(),
        )
    steps_per_epoch = len(parts.train) // experiment.batch_size
    tx = experiment.make_optimizer(steps_per_epoch)
    graphdef, params, stats = updates.split_model(
        experiment.model, experiment.is_trained
    )
    encoder = Encoder(experiment, maps)
    task = experiment.task
    needed = task.validation(experiment) if len(parts.validation) else {}

    def validate(state):
        variables = (state.params, state.stats)
        outputs = {name: encoder.outputs(variables, p) for name, p in needed.items()}
        return task.validate(experiment, outputs)

    def first_state():
        return updates.init_state(params, stats, tx)

    where = devices.state_shardings(
        jax.eval_shape(first_state), mesh, experiment.wide_features
    )
    fitted = fit(
        updates.make_update(
            graphdef, experiment.loss, tx, shardings=(where, devices.by_rows(mesh))
        ),
        devices.put(first_state(), where),
        batches,
        workdir=workdir,
        key=devices.key_of(experiment.seed, mesh),
        num_epochs=experiment.num_epochs,
        steps_per_epoch=steps_per_epoch,
        validate=validate if needed else None,
        best=task.score,
        ids=pairs.ids,
        config=experiment.config,
        place=lambda batch: devices.put_batch(batch, mesh),
        checkpoint_steps=experiment.checkpoint_steps,
    )
    variables = (fitted.state.params, fitted.state.stats)
    return encoder, variables, fitted.history
