"""With a model, every item of a collection is encoded; labels go by their names."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from test_nus_wide import NAMES, files
from tiny_archives import jpeg, write_flickr, write_folder

from modal_aware_jax import build
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_vectors import BagOfWords, TfIdf
from modal_aware_jax.modes.encode import encode_with_model, need_codes_of
from modal_aware_jax.modes.every_item import in_label_names, with_every_item
from modal_aware_jax.modes.model_files import EncoderModel
from modal_aware_jax.modes.reading import check_reading, keep_reading
from modal_aware_jax.modes.search import search_with_model
from modal_aware_jax.modes.serve import service_of_model
from modal_aware_jax.modes.train import fit_run


def data_of(source, directory, **options):
    """The data section of a config."""
    given = {"prepared_dir": str(directory.parent / "prepared"), "progress": False}
    options = build.reader_options(source, **given, on_problem="stop", **options)
    return ConfigDict({"source": source, "dir": str(directory), "options": options})


def model_of(words, label_names=()):
    """A model whose bits are the words of the text, so that codes tell them."""
    return EncoderModel(
        relaxed=lambda batch: np.where(batch["text"] > 0, 1.0, -1.0),
        image_size=16,
        num_text_features=len(words),
        num_bits=len(words),
        vocabulary=tuple(words),
        digest="0",
        label_names=tuple(label_names),
    )


def encode(model, data, tmp_path):
    pairs = build.every_item(data, model.vocabulary)
    path = encode_with_model(model, pairs, tmp_path / "out", batch_size=4)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_an_exported_model_encodes_what_training_would_drop(tmp_path, capsys):
    write_flickr(tmp_path / "data")
    # Here `sky` is rare: by its own rule the reader would know no word at all.
    data = data_of("flickr25k", tmp_path / "data", min_tag_count=20)
    with pytest.raises(ValueError, match="Lower --config.data.options.min_tag_count"):
        build.collection(data)
    found = encode(model_of(["boat", "sky", "zebra"]), data, tmp_path)
    assert found["ids"].tolist() == ["im1", "im2", "im3", "im4", "im7", "im10"]
    assert found["codes"].ravel().tolist() == [2, 2, 0, 1, 3, 0]  # boat 1, sky 2
    assert (
        "2 of 6 pairs of flickr25k have none of the model's w" in capsys.readouterr()[0]
    )


def test_an_exported_classifier_gives_no_codes(tmp_path):
    logits = model_of(["boat"])._replace(task="classification")
    message = "trained for the task classification, which has no codes"
    with pytest.raises(ValueError, match=message):
        encode_with_model(logits, None, tmp_path, batch_size=4)
    with pytest.raises(ValueError, match=message):
        search_with_model(logits, None, tmp_path, batch_size=4, words="boat")
    with pytest.raises(ValueError, match=message):
        service_of_model(logits, None, tmp_path)
    need_codes_of(logits._replace(task=""))  # a program alone does not say


def test_labels_of_an_encoding_are_in_the_models_order(tmp_path):
    data = tmp_path / "data"
    write_folder(data, {f"{i}.jpg": jpeg(i) for i in range(3)})
    table = "image,text,labels\n0.jpg,sea,b\n1.jpg,,a;c\n2.jpg,unknown words,\n"
    (data / "t.csv").write_text(table)
    model = model_of(["sea", "sky"], label_names=["c", "x", "b"])
    found = encode(model, data_of("folder", data), tmp_path)
    assert found["label_names"].tolist() == ["c", "x", "b", "a"]
    assert found["labels"].tolist() == [[0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]]
    assert found["codes"].ravel().tolist() == [1, 0, 0]


def test_pairs_without_a_label_are_read_for_a_model(tmp_path):
    flat = {
        name.rpartition("/")[2] if "Flickr/" in name else name: content
        for name, content in files().items()
    }
    flat = {f"images/{k}" if k.endswith(".jpg") else k: v for k, v in flat.items()}
    write_folder(
        tmp_path / "data", flat
    )  # pictures in one folder, `images/0001_11.jpg`
    data = data_of(
        "nus_wide", tmp_path / "data", label_names="sun", keep_untagged=False
    )
    assert build.collection(data).ids.tolist() == NAMES[4:]
    assert build.every_item(data, ()).ids.tolist() == NAMES
    assert build.leaves_out(data)
    assert not build.leaves_out(ConfigDict({"source": "shapes", "options": {}}))


@dataclasses.dataclass
class Run:
    """The fields of an experiment that reading needs."""

    collection: Collection
    text: Any


@pytest.mark.parametrize("kind", ["bag", "tfidf"])
def test_a_run_encodes_all_of_its_collection_in_its_own_words(tmp_path, kind):
    write_flickr(tmp_path / "data")
    data = data_of("flickr25k", tmp_path / "data", min_tag_count=2)
    pairs = build.collection(data)
    assert pairs.vocabulary == ("sky", "boat", "sea") and len(pairs) == 4
    text = BagOfWords(pairs) if kind == "bag" else TfIdf(pairs, np.array([0, 1]))
    whole = with_every_item(Run(pairs, text), data).collection
    assert len(whole) == 6 and not whole.text[2].any()
    kept = np.isin(whole.ids, pairs.ids)
    np.testing.assert_allclose(whole.text[kept], text.vectors(pairs))


TWO = Collection(
    "two", ["a", "b"], [b"", b""], np.eye(2), ["", ""], np.eye(2), (), ("sea", "dog")
)


def test_labels_match_by_name():
    pairs = TWO
    assert in_label_names(pairs, ("sea", "dog")) is pairs
    assert in_label_names(pairs, ()) is pairs
    other = in_label_names(pairs, ("dog", "sea"))
    assert other.labels.tolist() == [[0, 1], [1, 0]]


def test_data_in_another_order_is_told(tmp_path):
    pairs = TWO
    check_reading(Run(pairs, None), tmp_path)  # a run of before the file was kept
    keep_reading(Run(pairs, None), tmp_path)
    keep_reading(Run(pairs, None), tmp_path)
    turned = dataclasses.replace(pairs, label_names=("dog", "sea"))
    with pytest.raises(ValueError, match="knows 2 labels; .* 2, in another order. Use"):
        check_reading(Run(turned, None), tmp_path)
    other = dataclasses.replace(pairs, label_names=("sea", "cow"))
    with pytest.raises(ValueError, match="2, without 'dog' and with 'cow'"):
        keep_reading(Run(other, None), tmp_path)
    (tmp_path / "reading.json").write_text("{")
    with pytest.raises(ValueError, match="reading.json is damaged"):
        check_reading(Run(pairs, None), tmp_path)


def test_a_refused_training_leaves_the_split_as_it_was(tmp_path):
    pairs = TWO
    keep_reading(Run(pairs, None), tmp_path)
    (tmp_path / "split.json").write_text("as it was")
    other = dataclasses.replace(pairs, label_names=("sea", "cow"))
    refused = Run(other, None)
    refused.split = SimpleNamespace(train=range(8))
    refused.tensor_parallel, refused.batch_size = 1, 8
    with pytest.raises(ValueError, match="without 'dog' and with 'cow'"):
        fit_run(refused, tmp_path)
    assert (tmp_path / "split.json").read_text() == "as it was"
