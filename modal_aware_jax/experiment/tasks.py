"""Names of tasks, and what a config names that depends on its task."""

from collections.abc import Iterable
from typing import Any

from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.experiment.losses import has_taught_head, loss_options
from modal_aware_jax.tasks.classification import CLASSIFICATION
from modal_aware_jax.tasks.cross_modal import CROSS_MODAL
from modal_aware_jax.tasks.hashing import HASHING
from modal_aware_jax.tasks.label_matching import LABEL_MATCHING
from modal_aware_jax.tasks.matching import MATCHING
from modal_aware_jax.tasks.neighbours import neighbours
from modal_aware_jax.tasks.task import Task

TASKS = {
    task.name: task
    for task in (HASHING, CLASSIFICATION, MATCHING, LABEL_MATCHING, CROSS_MODAL)
}
DEFAULT = "hashing"  # of configs from before there were others
# What a task becomes for a collection without labels; the others need them.
UNLABELLED = {"hashing": neighbours}


def task_of(config) -> Task:
    """The task that a config names."""
    return choose("config.task", TASKS, config.get("task", DEFAULT))


def task_for(config, pairs) -> Task:
    """The task that a config names, in its form for a collection without labels."""
    task = task_of(config)
    if task.name in UNLABELLED and not pairs.labels.any():
        return UNLABELLED[task.name]()
    return task


def choose_method(task: Task, name: str, offered: Iterable[str] | None = None) -> Any:
    """The row of a method, or a ValueError that says why the task cannot use it.

    Args:
      task: whose methods are looked at.
      name: of the method.
      offered: the methods that a config has settings for; None: all of the task's.
    """
    if name in task.refused:
        known = [m for m in task.methods if offered is None or m in offered]
        raise ValueError(
            f"The task {task.name} cannot use the method {name!r}: "
            f"{task.refused[name]} Its methods: {', '.join(known)}."
        )
    return choose("method", task.methods, name)


def settled(config) -> dict[str, Any]:
    """The config's values, with the options of its own loss only: what the run is.

    Of the data's options it has those that were given. The task is left out where it is
    the default; nested lengths, shares of missing modalities, the taught head,
    mirrored and degraded readings where there are none: runs from before there were
    others are known again.
    """
    values = config.to_dict()
    for name in ("nested_bits", "image_missing", "text_missing", "head_features"):
        if not values["model"].get(name):
            values["model"].pop(name, None)
    if not has_taught_head(config):
        values["model"].pop("head_features", None)
    if not values["data"].get("mirrored"):
        values["data"].pop("mirrored", None)
    if not values["training"].get("degraded"):
        values["training"].pop("degraded", None)
    if values.get("task") == DEFAULT:
        del values["task"]
    values["loss"]["options"] = loss_options(config.loss, task_of(config).losses)
    options = values["data"].get("options", {})
    values["data"]["options"] = {k: v for k, v in options.items() if v is not None}
    return values
