"""From a config to the parts of an experiment: names become constructors here.

The tables `TASKS`, `SOURCES`, `BACKBONES`, `METHODS` and `LOSSES` have a file each in
the folder `experiment`, and so has every step from them to an experiment. Tasks apart,
nothing else reads a config; what is built holds plain values and functions.
"""

from modal_aware_jax.experiment.arguments import parse_arguments as parse_arguments
from modal_aware_jax.experiment.assembly import Experiment as Experiment
from modal_aware_jax.experiment.assembly import experiment as experiment
from modal_aware_jax.experiment.assembly import shortened as shortened
from modal_aware_jax.experiment.backbones import BACKBONES as BACKBONES
from modal_aware_jax.experiment.backbones import backbone as backbone
from modal_aware_jax.experiment.backbones import find_weights as find_weights
from modal_aware_jax.experiment.captioned import (
    captioned_settings as captioned_settings,
)
from modal_aware_jax.experiment.inputs import crop_maps as crop_maps
from modal_aware_jax.experiment.inputs import drop_words as drop_words
from modal_aware_jax.experiment.inputs import normalizer as normalizer
from modal_aware_jax.experiment.inputs import presence as presence
from modal_aware_jax.experiment.lookup import choose as choose
from modal_aware_jax.experiment.losses import LOSSES as LOSSES
from modal_aware_jax.experiment.losses import default_options as default_options
from modal_aware_jax.experiment.methods import BLOCKS as BLOCKS
from modal_aware_jax.experiment.methods import METHODS as METHODS
from modal_aware_jax.experiment.methods import model as model
from modal_aware_jax.experiment.mirrored import mean_with_mirror as mean_with_mirror
from modal_aware_jax.experiment.mirrored import reads_mirrored as reads_mirrored
from modal_aware_jax.experiment.optimizers import make_optimizer as make_optimizer
from modal_aware_jax.experiment.photographs import WEIGHTS as WEIGHTS
from modal_aware_jax.experiment.photographs import (
    photograph_arguments as photograph_arguments,
)
from modal_aware_jax.experiment.photographs import (
    photograph_settings as photograph_settings,
)
from modal_aware_jax.experiment.sources import SOURCES as SOURCES
from modal_aware_jax.experiment.sources import collection as collection
from modal_aware_jax.experiment.sources import every_item as every_item
from modal_aware_jax.experiment.sources import leaves_out as leaves_out
from modal_aware_jax.experiment.sources import reader_options as reader_options
from modal_aware_jax.experiment.tasks import TASKS as TASKS
from modal_aware_jax.experiment.tasks import choose_method as choose_method
from modal_aware_jax.experiment.tasks import settled as settled
from modal_aware_jax.experiment.tasks import task_of as task_of
