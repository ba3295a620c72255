"""The footing that the configs of captioned photographs share.

The networks, what is trained of them and for how long are the same for all; a config
file adds its collection.
"""

from ml_collections import config_dict

from modal_aware_jax.experiment.losses import default_options
from modal_aware_jax.experiment.sources import reader_options
from modal_aware_jax.tasks.matching import MATCHING


def captioned_settings(
    choice: dict, *, source: str, options: dict, num_validation: int
) -> dict:
    """All values of a config, section by section.

    Args:
      choice: `method`, ours where it is empty, and `seed`; `text`, where it is
        "fine_tuned" the sentence model is trained along.
      source: name of the collection in `SOURCES`.
      options: of its reader; the config has a place for each of the others.
      num_validation: images to validate with where the collection has no part of them:
        held aside of those to train on.
    """
    method = choice["method"]
    row = MATCHING.methods[method]
    trained = choice.get("text") == "fine_tuned"
    text = "word_pieces_by_line" if row.tokens else "sentences"
    return {
        "task": MATCHING.name,
        "seed": choice["seed"],
        "data": {
            "source": source,
            "dir": "",
            "options": reader_options(source, **options),
            "image_size": 256,
            # Whether images are embedded by the mean of what the network gives of them
            # as they are and mirrored; training draws either.
            "mirrored": True,
            # By the size of the collection where it brings no parts.
            "num_queries": config_dict.placeholder(int),
            "num_train": config_dict.placeholder(int),
            "num_validation": num_validation,
            "split_seed": 0,
            # Of each sentence one vector (sentences), or one of each word piece
            # (word_pieces_by_line), which towers read by their mean; or the word pieces
            # themselves (word_ids_by_line), for a model that is trained along.
            "text": "word_ids_by_line" if trained else text,
            "sentence_model": "",  # a folder; the installed model where empty
            "num_tokens": 24,  # word pieces of a sentence that are read
        },
        "backbone": {
            "name": "mobilenet_v2",
            "options": {"freeze_norm": True, "num_lower_blocks": 18},
            "weights": "mobilenet_v2_imagenet_tf.safetensors",
            "frozen_blocks": 19,
        },
        "model": {
            "method": method,
            "features": 1024,  # of the embeddings
            "hidden_features": 2048,
            "standard_inputs": True,  # features standardised before the first layer
            "image_dropout": 0.5,
            "text_dropout": 0.3,
            "hidden_dropout": 0.3,
            # Of networks of tokens: width of the nodes, layers and so on.
            "token_features": 128,
            "token_layers": 2,
            "token_heads": 4,
            "token_dropout": 0.1,
            "cca": {"regularization": 0.1, "power": 4.0},
            "dtype": "float32",  # or bfloat16: of the computation
            # Of a sentence model that is trained along.
            **({"encoder_dropout": 0.0} if trained else {}),
        },
        "loss": {
            "name": row.loss,
            "options": default_options(MATCHING.losses),
            # Of networks that score pairs: their loss counts so much, of so many
            # images of each batch, in groups in which each has so many wrong sentences.
            "pair_weight": 1.0,
            "pair_rows": 16,
            "num_negatives": 7,
            "momentum": 0.995,  # of a slow copy
        },
        "optimizer": {
            "learning_rate": 2e-3,
            "backbone_learning_rate": 1e-4,
            # Of a sentence model that is trained along (text=fine_tuned).
            **({"text_learning_rate": 5e-5} if trained else {}),
            "block_learning_rate": 0.25,  # of cross-modal parts, a factor
            "weight_decay": 0.0,
            "schedule": "cosine",
            "decay_every_epochs": 20,
            "warmup_steps": 30,
        },
        # So many of what the embeddings find first are put in the order of
        # similarity + weight x score of the pair, where the network has one.
        "retrieval": {"rerank": 50, "rerank_weight": 0.5},
        "training": {
            "num_epochs": 20 if trained else 50,
            "batch_size": 200,
            # The share of training pictures that are noisy, blurred or compressed.
            "degraded": 0.0,
            "cached_maps": True,
            "cached_means": True,
            "map_crop": 0,
            "cache_dir": "",
            "checkpoint_steps": 0,
            "workers": 0,
            "tensor_parallel": 1,
        },
    }
