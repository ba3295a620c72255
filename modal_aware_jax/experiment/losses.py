"""Names of losses, with the options they start from.

Every loss fits every network. Options are the common public ports'; where the authors
themselves use others, the loss says so (`losses/pairwise.py`, `losses/central.py`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.losses import central, pairwise, triplet
from modal_aware_jax.losses.contrastive import contrastive
from modal_aware_jax.losses.distance import shared_labels
from modal_aware_jax.losses.expected_ap import expected_average_precision_loss
from modal_aware_jax.losses.expected_ndcg import expected_ndcg_loss
from modal_aware_jax.losses.soft_relevance import (
    predicted_relevance,
    relevance_divergence,
    soft_relevance_ap_loss,
)
from modal_aware_jax.losses.triplet_graded import graded_margin, graded_weight
from modal_aware_jax.losses.triplet_mining import active_triplets, batch_hard, semi_hard
from modal_aware_jax.training.memory import CodeBank, StepCount


class Setting(NamedTuple):
    """What a loss may ask of a run.

    Attributes:
      num_bits, num_labels: K and L.
      num_pairs: of the collection.
      train: positions of the training pairs.
      num_steps: of the whole training.
      seed: of the run.
      labels: [N, L] of the collection.
    """

    num_bits: int
    num_labels: int
    num_pairs: int
    train: np.ndarray
    num_steps: int
    seed: int
    labels: np.ndarray | None = None


class Loss(NamedTuple):
    """A row of the table.

    Attributes:
      make: `make(setting, **options)` -> `loss(u, batch, memory)` of relaxed bits
        u [B, K] before tanh and of the batch's `labels` [B, L] and `index` [B], with
        a label head its `label_logits` [B, L], too.
      options: what `make` takes, and its values where the config gives no other.
      memory: `memory(setting)` -> a module of variables that the loss reads and
        renews, or None.
      taught: whether a network with a label head that it trains has its codes of a
        `TaughtHashHead`, of `config.model.head_features`.
      label_head: whether it learns from the logits of a label head.
    """

    make: Callable
    options: dict[str, Any]
    memory: Callable[[Setting], nnx.Module] | None = None
    taught: bool = False
    label_head: bool = False


def _of_batch(loss):
    """A loss of the batch's relaxed bits and labels alone."""

    def make(setting, **options):
        del setting
        return lambda u, batch, memory: loss(u, batch["labels"], **options)

    return make


def _after_tanh(loss):
    def after_tanh(u, labels, **options):
        return loss(jnp.tanh(u), labels, **options)

    return _of_batch(after_tanh)


def _by_root_bits(loss):
    """A loss of distances, its margin in units of √K: K-bit codes are up to 2 √K apart.

    The same margin at every length asks of 16 bits twice what it asks of 64.
    """

    def make(setting, *, margin_per_root_bit):
        margin = margin_per_root_bit * setting.num_bits**0.5
        return _after_tanh(functools.partial(loss, margin=margin))(setting)

    return make


def _expected_ap(u, labels, *, weight):
    return weight * expected_average_precision_loss(jnp.tanh(u), labels)


def _expected_ndcg(u, labels, *, weight):
    return weight * expected_ndcg_loss(jnp.tanh(u), labels)


def _taught_relevance(batch, share):
    """Relevances [B, B]: those of the labels, and a share of the label head's."""
    labels, logits = batch["labels"], batch["label_logits"]
    taught = predicted_relevance(logits, logits)
    shared = (shared_labels(labels, labels) > 0).astype(taught.dtype)
    return (1 - share) * shared + share * taught


def _soft_ap(setting, *, weight, share):
    def loss(u, batch, memory):
        relevance = _taught_relevance(batch, share)
        return weight * soft_relevance_ap_loss(jnp.tanh(u), relevance)

    return loss


def _listwise(setting, *, weight, temperature, share, ap_weight):
    def loss(u, batch, memory):
        relevance = _taught_relevance(batch, share)
        h = jnp.tanh(u)
        value = weight * relevance_divergence(h, relevance, temperature=temperature)
        if ap_weight:
            value += ap_weight * expected_average_precision_loss(h, batch["labels"])
        return value

    return loss


def _ninh(setting, *, margin_per_bit):
    margin = margin_per_bit * setting.num_bits
    return _of_batch(functools.partial(triplet.ninh, margin=margin))(setting)


def _dsh(setting, *, margin_per_bit, quantization_weight):
    margin = margin_per_bit * setting.num_bits
    loss = functools.partial(
        pairwise.dsh, margin=margin, quantization_weight=quantization_weight
    )
    return _of_batch(loss)(setting)


def staged_beta(step: jax.Array, num_steps: int, num_stages: int) -> jax.Array:
    """HashNet's β = √(stage + 1), the run cut into stages of equal length.

    Public code trains for 150 epochs in stages of 20: eight, whatever a run's length.

    >>> [round(float(staged_beta(step, 160, 8)), 3) for step in (0, 19, 20, 159)]
    [1.0, 1.0, 1.414, 2.828]
    """
    starts = jnp.asarray(np.arange(1, num_stages) * num_steps // num_stages)
    stage = jnp.sum(step >= starts)
    return jnp.sqrt(stage + 1.0)


def _hashnet(setting, *, alpha, num_stages):
    def loss(u, batch, count):
        beta = staged_beta(count(), setting.num_steps, num_stages)
        return pairwise.hashnet(u, batch["labels"], alpha=alpha, beta=beta)

    return loss


def _dpsh_bank(setting, *, quantization_weight):
    rows = np.full(setting.num_pairs, len(setting.train), np.int32)
    rows[setting.train] = np.arange(len(setting.train))

    def loss(u, batch, bank):
        # Renewed before the loss, as public code does: no code is older than an epoch.
        codes, labels = bank(jnp.asarray(rows)[batch["index"]], u, batch["labels"])
        return pairwise.dpsh(
            u,
            batch["labels"],
            quantization_weight=quantization_weight,
            bank=codes,
            bank_labels=labels,
        )

    return loss


def _csq(setting, *, quantization_weight):
    bits, seed = setting.num_bits, setting.seed
    loss = functools.partial(
        central.csq,
        centers=central.hash_centers(setting.num_labels, bits, seed),
        tie_bits=central.tie_bits(bits, seed),
        quantization_weight=quantization_weight,
    )
    return _of_batch(loss)(setting)


def _bank(setting):
    return CodeBank(len(setting.train), setting.num_bits, setting.num_labels)


def _count(setting):
    del setting
    return StepCount()


# Margin 2 at 64 bits, 1 at 16.
QUARTER = {"margin_per_root_bit": 0.25}

LOSSES = {
    "triplet_ranking": Loss(_by_root_bits(triplet.triplet_ranking), QUARTER),
    "triplet_active": Loss(_by_root_bits(active_triplets), QUARTER),
    "triplet_hard": Loss(_by_root_bits(batch_hard), QUARTER),
    "triplet_semi_hard": Loss(_by_root_bits(semi_hard), QUARTER),
    "triplet_graded_margin": Loss(_by_root_bits(graded_margin), QUARTER),
    "triplet_graded_weight": Loss(_by_root_bits(graded_weight), QUARTER),
    "expected_ap": Loss(_of_batch(_expected_ap), {"weight": 10.0}, taught=True),
    "expected_ndcg": Loss(_of_batch(_expected_ndcg), {"weight": 10.0}),
    # Relevance distillation: a share of the label head's own, 0 the labels' alone.
    "soft_ap": Loss(_soft_ap, {"weight": 10.0, "share": 1.0}, label_head=True),
    "listwise": Loss(
        _listwise,
        {"weight": 10.0, "temperature": 0.1, "share": 1.0, "ap_weight": 0.0},
        label_head=True,
    ),
    # With a margin of 2 at 64 bits 62 of them were constant, with the 1 of NINH's paper
    # 28 (`trials_margins.md`).
    "contrastive": Loss(_by_root_bits(contrastive), {"margin_per_root_bit": 1.0}),
    "dpsh": Loss(_of_batch(pairwise.dpsh), {"quantization_weight": 0.1}),
    "dpsh_bank": Loss(_dpsh_bank, {"quantization_weight": 0.1}, _bank),
    "dsh": Loss(_dsh, {"margin_per_bit": 2.0, "quantization_weight": 0.1}),
    "hashnet": Loss(_hashnet, {"alpha": 0.1, "num_stages": 8}, _count),
    "csq": Loss(_csq, {"quantization_weight": 1e-4}),
    "ninh": Loss(_ninh, {"margin_per_bit": 0.0625}),
}


def default_options(losses: dict[str, Loss] = LOSSES) -> dict[str, dict]:
    """The options of every loss by its name: a config's `loss.options`.

    Args:
      losses: of the task.
    """
    return {name: dict(loss.options) for name, loss in losses.items()}


def loss_options(config, losses: dict[str, Loss] = LOSSES) -> dict[str, Any]:
    """The options of the loss that `config.loss` names.

    Args:
      config: of the section `loss`: `name`, and `options` by name of the loss; what is
        missing there is the table's.
      losses: the table.
    """
    options = dict(choose("loss", losses, config.name).options)
    for name in config.options:
        if name not in losses:
            raise ValueError(
                f"config.loss.options.{name} belongs to no loss: the options stand "
                f"under its name, such as config.loss.options.{config.name}.{name}."
            )
    given = dict(config.options.get(config.name, {}))
    unknown = sorted(given.keys() - options.keys())
    if unknown:
        raise ValueError(
            f"config.loss.options.{config.name} has no {', '.join(unknown)}; the loss "
            f"takes {', '.join(options)}."
        )
    return options | given


def has_taught_head(config, losses: dict[str, Loss] = LOSSES) -> bool:
    """Whether a network of this config has its codes of a `TaughtHashHead`.

    It does where `model.head_features` gives its width, the loss allows for it, and
    there is a label head: `loss.label_weight` above 0.
    """
    row = losses.get(config.loss.name)
    wanted = config.model.get("head_features", 0) and config.loss.label_weight
    return bool(wanted and getattr(row, "taught", False))
