"""Which numbers a config may hold: others end in tracebacks, or teach nonsense."""

import math
import sys
from typing import NamedTuple


class Range(NamedTuple):
    """Numbers from the lowest to the highest, and the words for them in a message."""

    words: str
    lowest: float
    highest: float = sys.float_info.max


COUNT = Range("1 or more", 1)
SIZE = Range("0 or more", 0)
POSITIVE = Range("above 0", math.nextafter(0, 1))
SHARE = Range("a share, 0 to 1", 0, 1)
# What is left by dropout is scaled up, and of nothing there is nothing to scale.
DROPOUT = Range("a share, 0 or more and below 1", 0, math.nextafter(1, 0))

RANGES = {
    COUNT: (
        *("data.image_size", "data.num_queries", "data.num_train"),
        *("backbone.options.width", "model.num_bits", "model.features"),
        *("model.word_features", "model.token_features"),
        *("model.token_heads", "model.num_heads", "model.head_layers"),
        *("loss.pair_rows", "optimizer.decay_every_epochs"),
        *("training.num_epochs", "training.batch_size", "training.tensor_parallel"),
        *("data.options.min_word_count", "data.options.min_tag_count"),
        *("data.options.num_labels", "data.options.max_sentences"),
    ),
    SIZE: (
        *("data.num_validation", "data.num_tokens", "data.split_seed"),
        "backbone.frozen_blocks",
        *("model.hidden_features", "model.head_features", "model.image_features"),
        *("model.reader_layers", "model.token_layers", "model.image_side"),
        *("loss.label_weight", "loss.pair_weight", "retrieval.rerank"),
        *("optimizer.learning_rate", "optimizer.backbone_learning_rate"),
        *("optimizer.text_learning_rate", "optimizer.block_learning_rate"),
        *("optimizer.weight_decay", "optimizer.warmup_steps"),
        *("training.map_crop", "training.validation_database"),
        *("training.checkpoint_steps", "training.workers"),
        *("data.options.max_words", "data.options.stored_size"),
    ),
    SHARE: (
        *("model.modality_dropout", "loss.momentum"),
        *("training.word_dropout", "training.degraded"),
    ),
    DROPOUT: (
        *("model.image_dropout", "model.text_dropout", "model.hidden_dropout"),
        *("model.token_dropout", "model.head_dropout", "model.block_dropout"),
        *("model.encoder_dropout", "optimizer.b2"),
    ),
}

# Of every loss that has an option of this name, config.loss.options.LOSS.NAME.
OF_LOSSES = {
    COUNT: ("num_stages",),
    SIZE: (
        *("weight", "ap_weight", "quantization_weight", "balance_weight"),
        *("margin", "margin_per_bit", "margin_per_root_bit"),
    ),
    POSITIVE: ("temperature", "alpha"),
    SHARE: ("share", "label_smoothing"),
}


def check_ranges(config) -> None:
    """Refuses numbers beyond their range.

    Args:
      config: of one run; what it lacks or leaves open is not looked at.

    Raises:
      ValueError: names the key, its range and the number.
    """
    for allowed, names in RANGES.items():
        for name in names:
            value = config
            for key in name.split("."):
                value = None if value is None else value.get(key)
            _check(name, value, allowed)
    for loss, options in (config.get("loss") or {}).get("options", {}).items():
        for allowed, names in OF_LOSSES.items():
            for name in names if hasattr(options, "get") else ():
                _check(f"loss.options.{loss}.{name}", options.get(name), allowed)


def _check(name, value, allowed):
    # Not `value < lowest`, which lets a NaN pass.
    if value is not None and not allowed.lowest <= value <= allowed.highest:
        raise ValueError(f"config.{name} is {allowed.words}, got {value}.")
