"""NUS-WIDE: photographs with their tags, the 21 most frequent of 81 concepts.

    python -m modal_aware_jax.main --config=configs/nus_wide.py --config.data.dir=FOLDER

FOLDER holds the official files: the image list, the tags of 1,000 words, the concepts
in `Groundtruth/AllLabels` and the images; `modal_aware_jax/data/nus_wide.py` lists the
places they may lie in. 195,834 pairs carry one of the 21 concepts. 100 queries for each
of them are 2,100; 10,000 pairs of the rest are trained on (some papers take 10,500:
--config.data.num_train=10500). Weights are found as in `configs/flickr.py`.

Arguments after the colon, each optional: variant=full|quick (a frozen backbone whose
lower maps are computed once), method=NAME, bits=K, seed=S,
backbone=mobilenet_v2|resnet18|mobilenet_v2_torchvision. All but the data is as in
`configs/flickr.py`; no number has been measured with this config.
"""

from ml_collections import ConfigDict, config_dict

from modal_aware_jax.build import photograph_arguments, photograph_settings


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    choice = photograph_arguments(arg)
    return ConfigDict(
        photograph_settings(
            choice,
            source="nus_wide",
            options={"num_labels": 21, "on_problem": "skip"},
            queries={
                "queries_per_label": 100,
                "num_queries": config_dict.placeholder(int),  # in place of the above
            },
        )
    )
