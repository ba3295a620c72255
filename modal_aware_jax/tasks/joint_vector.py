"""Networks with one joint vector for a pair and a head on it: how they are trained."""

from collections.abc import Callable

import jax
import optax
from flax import nnx

from modal_aware_jax.experiment.inputs import drop_modalities, drop_words
from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.experiment.losses import Setting, loss_options
from modal_aware_jax.experiment.methods import missing_rates
from modal_aware_jax.hashing.head import TaughtHashHead, label_logits
from modal_aware_jax.hashing.nested import check_lengths, nested_loss
from modal_aware_jax.losses.taught_codes import steepness, taught_code_loss
from modal_aware_jax.training.memory import StepCount

TAUGHT_WEIGHT = 10.0  # that of the average precision beside it


def head_output(joint: Callable) -> Callable:
    """`output(model, batch)`: the head on the joint vectors, in evaluation mode."""

    def output(model, batch):
        return model.head(joint(model, batch, batch["text"], train=False))

    return output


def head_loss(
    losses: dict, config, pairs, parts, network, joint, *, added: Callable | None = None
) -> Callable:
    """`loss(model, batch, key)`: a loss of the head's output, and of the label head's.

    Gives the network the memory that its loss needs. Of a `TaughtHashHead` the loss is
    of its direct bits, and its codes learn from the label head's logits.

    Args:
      losses: of the task, `loss(output, batch, memory)` each.
      config: of one run; this and the others as for `Task.loss`.
      added: `added(vectors, of_head, batch)` -> a further term; `of_head(output)` is
        the loss of other outputs like the head's. None for none.
    """
    training, label_weight = config.training, config.loss.label_weight
    setting = Setting(
        num_bits=config.model.get("num_bits", 0),
        num_labels=pairs.num_labels,
        num_pairs=len(pairs),
        train=parts.train,
        num_steps=training.num_epochs * (len(parts.train) // training.batch_size),
        seed=config.seed,
        labels=pairs.labels,
    )
    kind = choose("loss", losses, config.loss.name)
    if kind.label_head and not label_weight:
        raise ValueError(
            f"config.loss.name={config.loss.name} learns from the label head: set "
            "--config.loss.label_weight above 0, such as 1."
        )
    options = loss_options(config.loss, losses)
    nested = config.model.get("nested_bits", ())
    if nested and kind.memory is not None:
        raise ValueError(
            f"config.model.nested_bits: the loss {config.loss.name} keeps a memory of "
            "codes of one length. Take another, such as "
            "--config.loss.name=expected_ap."
        )
    if nested:
        loss = nested_loss(
            lambda bits: kind.make(setting._replace(num_bits=bits), **options),
            check_lengths(nested, setting.num_bits),
        )
    else:
        loss = kind.make(setting, **options)
    if kind.memory is not None:
        network.memory = kind.memory(setting)
    taught = isinstance(network.head, TaughtHashHead)
    if taught:
        network.taught_steps = StepCount()
    lengths = check_lengths(nested, setting.num_bits) if taught else ()
    missing = missing_rates(config.model)
    takes_away = any(missing.values()) and getattr(network, "has_stand_ins", False)

    def training_loss(model, batch, key):
        words, window, dropout = jax.random.split(key, 3)
        text, labels = batch["text"], batch["labels"]
        if training.word_dropout:
            text = drop_words(words, text, training.word_dropout)
        if takes_away:
            other = jax.random.fold_in(key, 3)  # after the three of above
            batch = drop_modalities(other, batch, text, **missing)
        rngs = nnx.Rngs(dropout=dropout)
        vectors = joint(model, batch, text, train=True, window=window, rngs=rngs)
        if label_weight:
            logits = label_logits(model, vectors)  # [B, L]
            batch = {**batch, "label_logits": logits}
        memory = getattr(model, "memory", None)

        def of_head(output):
            return loss(output, batch, memory)

        value = of_head((model.head.direct if taught else model.head)(vectors))
        if added is not None:
            value += added(vectors, of_head, batch)
        if label_weight:
            entropy = optax.sigmoid_binary_cross_entropy(logits, labels)
            value += label_weight * entropy.sum(axis=-1).mean()
        if taught:
            beta = steepness(model.taught_steps(), setting.num_steps)
            bits = model.head.of_labels(logits)
            values = [taught_code_loss(bits[:, :b], logits, beta) for b in lengths]
            value += TAUGHT_WEIGHT * sum(values) / len(values)
        return value

    return training_loss
