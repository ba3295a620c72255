"""What the command line does, one mode a file, each a function of an experiment."""

from modal_aware_jax.modes.encode import encode_collection, encode_with_model
from modal_aware_jax.modes.evaluate import evaluate_codes_file, evaluate_run
from modal_aware_jax.modes.every_item import with_every_item
from modal_aware_jax.modes.export import export_run
from modal_aware_jax.modes.model_files import load_model_file
from modal_aware_jax.modes.predict import (
    line_of,
    need_classes,
    posts_to_predict,
    predict,
    predictor_of_model,
    predictor_of_run,
    write_predictions_table,
)
from modal_aware_jax.modes.search import (
    check_query,
    read_query_image,
    search_run,
    search_with_model,
)
from modal_aware_jax.modes.search_embeddings import (
    check_one_query,
    search_embeddings,
)
from modal_aware_jax.modes.search_index import search_index_file
from modal_aware_jax.modes.serve import service_of_model, service_of_run
from modal_aware_jax.modes.train import fit_run, train

__all__ = [
    "check_one_query",
    "check_query",
    "encode_collection",
    "encode_with_model",
    "evaluate_codes_file",
    "evaluate_run",
    "export_run",
    "fit_run",
    "line_of",
    "load_model_file",
    "need_classes",
    "posts_to_predict",
    "predict",
    "predictor_of_model",
    "predictor_of_run",
    "read_query_image",
    "search_embeddings",
    "search_index_file",
    "search_run",
    "search_with_model",
    "service_of_model",
    "service_of_run",
    "train",
    "with_every_item",
    "write_predictions_table",
]
