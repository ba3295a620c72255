"""Training: the pure update, its optimiser, the visible loop and what it keeps."""

from modal_aware_jax.training.optimizer import (
    adam_l2,
    by_prefix,
    cosine,
    step_decay,
    warm_up,
)
from modal_aware_jax.training.update import (
    TrainState,
    init_state,
    make_update,
    merge_model,
    split_model,
)

__all__ = [
    "TrainState",
    "adam_l2",
    "by_prefix",
    "cosine",
    "init_state",
    "make_update",
    "merge_model",
    "split_model",
    "step_decay",
    "warm_up",
]
