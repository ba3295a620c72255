"""The footing that the configs of photograph collections share.

The networks, what is trained of them and for how long are the same for all; a config
file adds its collection and the queries.
"""

from modal_aware_jax.experiment.arguments import parse_arguments
from modal_aware_jax.experiment.losses import default_options
from modal_aware_jax.experiment.methods import METHODS
from modal_aware_jax.experiment.sources import reader_options

WEIGHTS = {
    "mobilenet_v2": "mobilenet_v2_imagenet_tf.safetensors",
    "resnet18": "resnet18.safetensors",
    "mobilenet_v2_torchvision": "mobilenet_v2_torchvision.safetensors",
}
# The first blocks of the backbone that are not trained.
FROZEN_BLOCKS = {
    "mobilenet_v2": {"full": 7, "quick": 19},
    "resnet18": {"full": 1, "quick": 9},
    "mobilenet_v2_torchvision": {"full": 7, "quick": 19},
}


def photograph_arguments(arg: str) -> dict:
    """The arguments after the config file's colon, each with its default.

    Example:
      >>> photograph_arguments("variant=quick,bits=32")["variant"]
      'quick'
    """
    return parse_arguments(
        arg,
        variant=("full", "quick"),
        method=("modal_aware", *METHODS),
        bits=64,
        seed=0,
        backbone=tuple(WEIGHTS),
    )


def photograph_settings(
    choice: dict,
    *,
    source: str,
    options: dict,
    queries: dict,
) -> dict:
    """All values of a config, section by section.

    Args:
      choice: of `photograph_arguments`. The quick variant keeps the backbone frozen and
        computes its lower maps once.
      source: name of the collection in `SOURCES`.
      options: of its reader; the config has a place for each of the others.
      queries: how many the data's split sets aside, under the names that it takes.
    """
    method, backbone = choice["method"], choice["backbone"]
    quick = choice["variant"] == "quick"
    return {
        "task": "hashing",
        "seed": choice["seed"],
        "data": {
            "source": source,
            "dir": "",
            "options": reader_options(source, **options),
            "image_size": 224 if quick else 160,
            # Whether pictures are encoded by the mean of what the network gives of them
            # as they are and mirrored; training draws either.
            "mirrored": quick,
            **queries,
            "num_train": 10_000,
            "num_validation": 1000,
            "split_seed": 0,
            # bag, tfidf, sentence (vectors of the captions) or words (sums of vectors
            # of the words): see data/text_vectors.py.
            "text": "words",
            "sentence_model": "",  # a folder; the installed model where empty
            "word_vectors": "own",  # or a sentence model's folder; '': the installed
        },
        "backbone": {
            "name": backbone,
            "options": _backbone_options(backbone, quick),
            "weights": WEIGHTS[backbone],
            "frozen_blocks": FROZEN_BLOCKS[backbone][choice["variant"]],
        },
        "model": {
            "method": method,
            "num_bits": choice["bits"],
            "nested_bits": (),  # lengths at which a prefix is a code, too
            "text_widths": (8192 if method == "modal_aware_paper" else 1024, 512),
            "dtype": "float32",  # or bfloat16: of the computation
            "image_features": 1024,
            "image_dropout": 0.5,
            # Shares of rows that lose one in training: a stand-in is learned.
            "image_missing": 0.0,
            "text_missing": 0.0,
            "standard_text": True,
            "hidden_features": 512,
            # Width of the layer between label probabilities and codes that learn from
            # them; 0, no label head or labels, or another loss than expected_ap:
            # codes are read off the joint vector.
            "head_features": 512 if quick else 0,
        },
        "loss": {
            "name": METHODS[method].loss,
            "options": default_options(),
            "label_weight": 1.0,
        },
        "optimizer": {
            "learning_rate": 2e-3,
            "backbone_learning_rate": 1e-4,
            # A factor on the learning rate: blocks that learn as fast as the rest
            # learn the training pairs by heart.
            "block_learning_rate": 0.1,
            # The paper's is 1e-5. Adam takes full steps along an L2 term alone, which
            # between two uses of a rare tag wears its weights away.
            "weight_decay": 0.0,
            "schedule": "cosine",
            "decay_every_epochs": 20,
            "warmup_steps": 30,
        },
        "training": {
            "num_epochs": 16 if quick else 8,
            # A ranking by average precision wants many rivals.
            "batch_size": 250 if quick else 100,
            "word_dropout": 0.5,
            # The share of training pictures that are noisy, blurred or compressed.
            "degraded": 0.0,
            "cached_maps": quick,
            # A network without blocks reads no more of a frozen backbone than means;
            # with the last block alone its last maps, 250 kB a pair of 224 pixels.
            "cached_means": quick,
            "map_crop": 0,
            "cache_dir": "",
            # Validation queries search pairs that are not trained on (or "database":
            # all others), and so many of them each epoch (0: all).
            "validation_search": "unseen",
            "validation_database": 0,
            "checkpoint_steps": 0 if quick else 50,
            "workers": 0,
            # Devices that share the wide text weights, split along their width.
            "tensor_parallel": 1,
        },
    }


def _backbone_options(backbone: str, quick: bool) -> dict:
    if backbone == "resnet18":
        return {}
    # TensorFlow's have their norms folded in: see backbones/mobilenet.py.
    options = {"freeze_norm": True}
    if quick:  # block 1 before the last convolution: a fifth of the work
        options["num_lower_blocks"] = 18
    return options
