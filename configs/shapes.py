"""The embedded `shapes` data: trains in minutes on a laptop, without a download.

    python -m modal_aware_jax.main --config=configs/shapes.py --workdir=runs/shapes

An argument after a colon chooses a variant: `configs/shapes.py:method=concat,bits=32`.
"""

from ml_collections import ConfigDict

from modal_aware_jax.build import (
    METHODS,
    default_options,
    parse_arguments,
    reader_options,
)


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; `arg` is `method=NAME,bits=K,seed=S`, each optional."""
    choice = parse_arguments(arg, method=("modal_aware", *METHODS), bits=32, seed=0)
    return ConfigDict(
        {
            "task": "hashing",
            "seed": choice["seed"],
            "data": {
                "source": "shapes",
                "options": reader_options("shapes", num_pairs=4000, image_size=64),
                "image_size": 64,
                "num_queries": 500,
                "num_train": 3000,
                "num_validation": 400,
                "split_seed": 0,
                # bag, tfidf, sentence (vectors of the captions) or words (sums of
                # vectors of the words): see data/text_vectors.py.
                "text": "bag",
                "sentence_model": "",  # a folder; the installed model where empty
                # Of words: "own", or a sentence model's folder (empty: the installed).
                "word_vectors": "own",
            },
            "backbone": {
                "name": "resnet18",
                "options": {"width": 16},
                "weights": "",
                "frozen_blocks": 0,
            },
            "model": {
                "method": choice["method"],
                "num_bits": choice["bits"],
                "nested_bits": (),  # lengths at which a prefix is a code, too
                "text_widths": (256, 64),
                "dtype": "float32",  # or bfloat16: of the computation
                "image_features": 0,
                "image_dropout": 0.3,  # of the layer of `image_features`
                # Shares of rows that lose one in training: a stand-in is learned.
                "image_missing": 0.0,
                "text_missing": 0.0,
                "standard_text": True,
                "hidden_features": 0,
                # Width of the layer between label probabilities and codes that learn
                # from them; 0: codes are read off the joint vector.
                "head_features": 0,
            },
            "loss": {
                "name": METHODS[choice["method"]].loss,
                "options": default_options(),
                "label_weight": 0.0,
            },
            "optimizer": {
                "learning_rate": 1e-3,
                "backbone_learning_rate": 1e-3,
                "block_learning_rate": 1.0,  # a factor on the learning rate
                "weight_decay": 1e-5,
                "schedule": "cosine",
                "decay_every_epochs": 20,
                "warmup_steps": 30,
            },
            "training": {
                "num_epochs": 10,
                "batch_size": 100,
                "word_dropout": 0.0,
                "cached_maps": False,
                "cached_means": False,
                "map_crop": 0,
                # Validation queries search pairs that are not trained on (or
                # "database": all others), and so many of them each epoch (0: all).
                "validation_search": "unseen",
                "validation_database": 0,
                "checkpoint_steps": 0,
                "workers": 0,
                # Devices that share the wide text weights, split along their width.
                "tensor_parallel": 1,
            },
        }
    )
