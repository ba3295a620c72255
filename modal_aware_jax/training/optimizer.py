"""Adam as the papers use it, its learning rates over time and by group."""

from collections.abc import Callable

import jax
import optax

from modal_aware_jax.training.update import starts_with


def adam_l2(
    learning_rate: float | Callable,
    *,
    weight_decay: float = 1e-5,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam with coupled L2, as `torch.optim.Adam(weight_decay=...)`.

    The decay joins the gradient before Adam scales it; AdamW's decay does not.

    Args:
        learning_rate: a number, or a schedule: a function of the step.
        weight_decay: λ of the penalty λ/2 ‖w‖².
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1, b2, epsilon),
        optax.scale_by_learning_rate(learning_rate),
    )


def by_prefix(
    transforms: dict[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
    """An optimiser of its own for each part of the model.

    Args:
        transforms: dotted path prefixes and their optimisers; the longest prefix that
            fits a parameter wins, and '' fits all.

    >>> tx = by_prefix({"backbone": adam_l2(1e-5), "": adam_l2(1e-4)})
    """

    def group(path, _):
        names = tuple(getattr(entry, "key", entry) for entry in path)
        fitting = [prefix for prefix in transforms if starts_with(names, prefix)]
        if not fitting:
            raise ValueError(
                f"by_prefix: no group holds the parameter {'.'.join(map(str, names))}; "
                f"the groups are {sorted(transforms)}. Add '' for all others."
            )
        return max(fitting, key=len)

    def groups(params):
        return jax.tree.map_with_path(group, params)

    return optax.partition(transforms, groups)


def step_decay(
    learning_rate: float,
    *,
    steps_per_epoch: int,
    every_epochs: int = 20,
    factor: float = 0.1,
    warmup_steps: int = 0,
) -> Callable:
    """The papers' schedule: ÷10 every 20 epochs.

    Args:
        warmup_steps: the rate first grows linearly from 0 over that many steps; the
            epochs count from step 0 all the same.

    >>> rate = step_decay(1e-4, steps_per_epoch=100)
    >>> [round(float(rate(step)), 8) for step in (0, 1999, 2000)]
    [0.0001, 0.0001, 1e-05]
    """
    decay = optax.exponential_decay(
        learning_rate, every_epochs * steps_per_epoch, factor, staircase=True
    )
    return warm_up(decay, warmup_steps)


def cosine(learning_rate: float, *, num_steps: int, warmup_steps: int = 0) -> Callable:
    """Half a cosine from the learning rate to 0 at `num_steps`, after a warm-up.

    >>> rate = cosine(1.0, num_steps=110, warmup_steps=10)
    >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 60, 110)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else learning_rate, learning_rate, warmup_steps, num_steps
    )


def warm_up(schedule: Callable, warmup_steps: int) -> Callable:
    """A schedule whose first steps are scaled up linearly from 0."""
    if not warmup_steps:
        return schedule
    ramp = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return lambda step: ramp(step) * schedule(step)
