"""The optimiser of a config."""

import optax

from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.training import optimizer

# What networks call their cross-modal parts.
BLOCKS = (
    *("block1", "block2", "classifier.interaction", "classifier.fusion"),
    *("network.graph", "network.pairs"),
)
# What they call a text encoder that is trained along.
READERS = ("reader", "towers.text.reader")


def make_optimizer(config, num_epochs: int, steps_per_epoch: int):
    """Adam with coupled L2; backbone and blocks have learning rates of their own.

    `block_learning_rate` is a factor on the rate of the rest. Gates that learn as fast
    as what they gate learn which training pair is before them: they raise the score of
    the training pairs and lower that of new ones (numbers in the README).

    A pretrained text encoder that is trained along, of `READERS`, has the rate
    `text_learning_rate`, where the config names one.

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
        decay, b2 = config.weight_decay, config.get("b2", 0.999)
        return optimizer.adam_l2(schedule(rate), weight_decay=decay, b2=b2)

    groups = {
        "backbone": adam(config.backbone_learning_rate),
        "": adam(config.learning_rate),
    }
    if "text_learning_rate" in config:
        groups |= {name: adam(config.text_learning_rate) for name in READERS}
    factor = config.get("block_learning_rate", 1.0)
    if factor != 1:
        groups |= {name: adam(factor * config.learning_rate) for name in BLOCKS}
    return optimizer.by_prefix(groups)
