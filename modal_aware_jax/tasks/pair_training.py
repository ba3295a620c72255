"""How networks of tokens learn: a contrast, and pairs among hard negatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.experiment.inputs import drop_words
from modal_aware_jax.losses.cross_pairs import cosines
from modal_aware_jax.losses.momentum_contrast import momentum_info_nce, moving_average
from modal_aware_jax.losses.pair_groups import PAIR_LOSSES, draw_groups
from modal_aware_jax.models.captioned import by_sentence
from modal_aware_jax.models.captioned_tokens import CaptionedTokens


def draw_tokens(key: jax.Array, text: dict) -> dict:
    """One of the sentences of each image, all alike likely, as a batch of one each.

    Args:
      key: of the draw.
      text: `tokens` [B, S, n, D] and `mask` [B, S, n].

    Returns:
      `tokens` [B, 1, n, D] and `mask` [B, 1, n].

    >>> text = {"tokens": jnp.ones((1, 2, 1, 3)), "mask": jnp.array([[[0], [1]]])}
    >>> draw_tokens(jax.random.key(0), text)["mask"].tolist()
    [[[1]]]
    """
    drawn = _number(key, jnp.any(text["mask"] != 0, axis=2))
    tokens = jnp.take_along_axis(text["tokens"], drawn[:, None, None, None], axis=1)
    mask = jnp.take_along_axis(text["mask"], drawn[:, None, None], axis=1)
    return {"tokens": tokens, "mask": mask}


def draw_sentence(key: jax.Array, text: jax.Array, num_sentences: int) -> jax.Array:
    """One of the sentences of each image, all alike likely.

    Args:
      key: of the draw.
      text: [B, S·T], side by side; zeros stand for a sentence that is not there.
      num_sentences: S.

    Returns:
      [B, T]; zeros for an image without any.

    >>> text = jnp.array([[0.0, 0.0, 1.0, 2.0, 0.0, 0.0]])
    >>> draw_sentence(jax.random.key(0), text, 3).tolist()
    [[1.0, 2.0]]
    """
    rows = text.reshape(len(text), num_sentences, -1)  # [B, S, T]
    drawn = _number(key, jnp.any(rows != 0, axis=2))
    return jnp.take_along_axis(rows, drawn[:, None, None], axis=1)[:, 0]


def _number(key, there):
    """Which of those that are there is drawn: [B, S] to [B]."""
    return (jax.random.uniform(key, there.shape) * there).argmax(axis=1)


def draw_text(key: jax.Array, text, width: int, word_dropout: float = 0.0):
    """One sentence of each image, some of its words dropped, and its number.

    Args:
      key: draws both.
      text: as for `draw_tokens`, without lines too, or for `draw_sentence`.
      width: of a row of the latter.
      word_dropout: the share of words, or of numbers of a row, that are dropped.

    Returns:
      `draw_tokens` or `draw_sentence` of it, and `drawn_number`.
    """
    if word_dropout:
        text = drop_words(jax.random.fold_in(key, 1), text, word_dropout)
    number = drawn_number(key, text, width)
    if isinstance(text, dict):
        return draw_tokens(key, by_sentence(text)), number
    return draw_sentence(key, text, text.shape[1] // width), number


def drawn_number(key: jax.Array, text, width: int) -> jax.Array:
    """Which sentence `draw_text` draws of each image with the same key: int [B].

    >>> text = jnp.array([[0.0, 0.0, 1.0, 2.0, 0.0, 0.0]])
    >>> drawn_number(jax.random.key(0), text, 2).tolist()
    [1]
    """
    if isinstance(text, dict):
        return _number(key, jnp.any(by_sentence(text)["mask"] != 0, axis=2))
    return _number(key, jnp.any(text.reshape(len(text), -1, width) != 0, axis=2))


def pair_loss(config, method, contrast: Callable, joint: Callable) -> Callable:
    """`loss(model, batch, key)` of a `CaptionedTokens`.

    The contrast of the embeddings, and `loss.pair_weight` times the loss of the scores
    of all pairs in groups of 1 + `loss.num_negatives` images and sentences that are
    alike by the embeddings, of `loss.pair_rows` images of each batch together.

    Args:
      config: of one run.
      method: the row of the table; see `experiment.matchers.Matcher`.
      contrast: `contrast(image, text, temperature, batch)` -> scalar.
      joint: as for `Task.loss`.

    Raises:
      ValueError: a batch has no group of this size.
    """
    options, batch_size = config.loss, config.training.batch_size
    word_dropout = config.training.get("word_dropout", 0.0)
    size = 1 + options.num_negatives
    if not 2 <= size <= batch_size:
        raise ValueError(
            f"config.loss.num_negatives={options.num_negatives}: expected 1 to "
            f"{batch_size - 1}, as all are drawn from a batch of {batch_size} "
            "(config.training.batch_size)."
        )
    num_groups = max(1, min(options.pair_rows, batch_size) // size)
    judge = PAIR_LOSSES[method.pairs]

    def loss(model: CaptionedTokens, batch, key):
        words, negatives, embeddings, pairs = jax.random.split(key, 4)
        width = 0 if model.reader is None else model.reader.in_features
        rngs = nnx.Rngs(dropout=embeddings)
        text, number = draw_text(words, batch["text"], width, word_dropout)
        batch = {**batch, "sentence": number}
        text = model.read(text, train=True, rngs=rngs)
        image, rows, tokens = joint(model, batch, text, train=True, rngs=rngs)
        rows, groups, scale = rows[:, 0], batch["index"], model.temperature.scale()
        if model.slow is None:
            value = contrast(image, rows, model.temperature, batch)
        else:
            slow = follow(model, options.momentum)
            value = momentum_info_nce(
                image,
                rows,
                slow.embed_image(tokens),
                slow.embed_text(text["tokens"][:, 0], text_mask=text["mask"][:, 0]),
                scale=scale,
                groups=groups,
            )
        drawn = draw_groups(
            negatives,
            scale * cosines(image, rows),
            num_groups=num_groups,
            size=size,
            groups=groups,
        )
        scores = scores_in_groups(model, tokens, text, drawn.rows, pairs)
        judged = judge(scores, drawn.there)
        value += options.pair_weight * judged
        return value, {"pair_loss": judged}

    return loss


def scores_in_groups(
    model: CaptionedTokens,
    tokens: jax.Array,
    text: dict,
    rows: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Scores of all pairs in groups of rows, each row encoded once.

    Args:
      tokens: of images, [B, M, C].
      text: `tokens` [B, 1, n, D] and `mask` [B, 1, n].
      rows: int [G, m].
      key: of dropout.

    Returns:
      [G, m, m] of the images and the texts of each group.
    """
    flat, way = rows.reshape(-1), {"train": True, "rngs": nnx.Rngs(dropout=key)}
    mask = text["mask"][flat, 0]
    image, words = model.encode(tokens[flat], text["tokens"][flat, 0], mask, **way)
    places = jnp.arange(rows.size).reshape(rows.shape)
    shape = *rows.shape, rows.shape[1]
    of_image, of_text = (
        jnp.broadcast_to(side, shape).reshape(-1)
        for side in (places[:, :, None], places[:, None, :])
    )
    scores = model.score(image[of_image], words[of_text], mask[of_text], **way)
    return scores.reshape(shape)


def follow(model: CaptionedTokens, momentum: float) -> nnx.Module:
    """Moves a model's slow copy towards its network, and gives it; no gradient passes.

    Args:
      momentum: the share of the old.
    """
    fast, slow = (
        nnx.to_pure_dict(nnx.state(network, nnx.Param))
        for network in (model.network, model.slow)
    )
    moved = moving_average(slow, jax.lax.stop_gradient(fast), momentum=momentum)
    nnx.update(model.slow, moved)
    return model.slow
