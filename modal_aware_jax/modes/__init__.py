"""What the command line does, one mode a file, each a function of an experiment."""

from modal_aware_jax.modes.encode import encode_collection
from modal_aware_jax.modes.evaluate import evaluate_codes_file, evaluate_run
from modal_aware_jax.modes.search import search_run
from modal_aware_jax.modes.train import train

__all__ = [
    "encode_collection",
    "evaluate_codes_file",
    "evaluate_run",
    "search_run",
    "train",
]
