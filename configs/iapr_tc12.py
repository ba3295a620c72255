"""IAPR TC-12: photographs with captions, 255 labels.

    python -m modal_aware_jax.main --config=configs/iapr_tc12.py \\
        --config.data.dir=FOLDER

FOLDER holds `annotations_complete_eng/`, `images/` and a file of labels;
`modal_aware_jax/data/iapr_tc12.py` says which. The papers read 2,912 words of the
captions, ask 2,000 queries and train on 10,000 pairs. Sentence vectors in place of
words: --config.data.text=sentence. Weights are found as in `configs/flickr.py`.

Arguments after the colon, each optional: variant=full|quick (a frozen backbone whose
lower maps are computed once), method=NAME, bits=K, seed=S,
backbone=mobilenet_v2|resnet18|mobilenet_v2_torchvision. All but the data is as in
`configs/flickr.py`; no number has been measured with this config.
"""

from ml_collections import ConfigDict

from modal_aware_jax.build import photograph_arguments, photograph_settings


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    choice = photograph_arguments(arg)
    return ConfigDict(
        photograph_settings(
            choice,
            source="iapr_tc12",
            options={"max_words": 2912, "on_problem": "skip"},
            queries={"num_queries": 2000},
        )
    )
