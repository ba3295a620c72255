"""The optimiser of a config."""

import optax

from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.training import optimizer


def make_optimizer(config, num_epochs: int, steps_per_epoch: int):
    """Adam with coupled L2; the backbone has a learning rate of its own.

    A warm-up longer than half of a short run is cut to that half.
    """
    num_steps = num_epochs * steps_per_epoch
    warmup_steps = min(config.warmup_steps, num_steps // 2)

    def step(rate):
        return optimizer.step_decay(
            rate,
            steps_per_epoch=steps_per_epoch,
            every_epochs=config.decay_every_epochs,
            warmup_steps=warmup_steps,
        )

    def cosine(rate):
        return optimizer.cosine(rate, num_steps=num_steps, warmup_steps=warmup_steps)

    schedule = choose("schedule", {"step": step, "cosine": cosine}, config.schedule)

    def adam(rate) -> optax.GradientTransformation:
        return optimizer.adam_l2(schedule(rate), weight_decay=config.weight_decay)

    return optimizer.by_prefix(
        {
            "backbone": adam(config.backbone_learning_rate),
            "": adam(config.learning_rate),
        }
    )
