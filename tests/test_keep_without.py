"""Readers keep pairs that lack an image or a text where they are asked to."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_archives import jpeg, write_flickr, write_folder

from modal_aware_jax.build import reader_options
from modal_aware_jax.data import flickr25k, folder, pipeline
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.presence import with_presence
from modal_aware_jax.data.problems import DataProblems
from modal_aware_jax.data.text_vectors import WordTokens, represent
from modal_aware_jax.data.token_table import TokenTable
from modal_aware_jax.experiment.methods import needs_stand_ins

TABLE = """image,text,labels
a.jpg,sea sky,x
b.jpg,,y
gone.jpg,sea,x
,sky boat,y
lost.jpg,,x
"""


def load(reader, directory, **options):
    prepared = directory.parent / "prepared"
    return reader.load(directory, prepared_dir=prepared, progress=False, **options)


def test_a_folder_keeps_rows_without_an_image_or_a_text(tmp_path):
    data = tmp_path / "data"
    write_folder(data, {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    (data / "t.csv").write_text(TABLE)
    with pytest.raises(DataProblems, match="keep_without_image=true"):
        load(folder, data, min_word_count=1, keep_without_text=True)
    with pytest.raises(DataProblems, match="allow_empty_text=true"):
        load(folder, data, min_word_count=1, keep_without_image=True)
    options = {"keep_without_text": True, "keep_without_image": True}
    pairs = load(folder, data, min_word_count=1, **options)
    assert pairs.ids.tolist() == ["a.jpg", "b.jpg", "gone.jpg", "t/5"]
    assert pairs.has_image.tolist() == [True, True, False, False]
    assert pairs.captions[3] == "sky boat" and pairs.images[0] == jpeg(1)
    assert with_presence(pairs).has_text.tolist() == [True, False, True, True]
    batch = next(
        iter(
            pipeline.eval_batches(
                with_presence(pairs), [1, 2, 3], batch_size=4, image_size=8
            )
        )
    )
    assert batch["has_image"][:3].tolist() == [True, False, False]
    assert batch["has_text"][:3].tolist() == [False, True, True]
    assert (batch["image"][1] == 128).all()


def test_flickr_keeps_tags_whose_image_is_gone(tmp_path):
    data = write_flickr(tmp_path / "data", change_images={"mirflickr/im2.jpg": None})
    options = {"min_tag_count": 1, "num_labels": 24}
    with pytest.raises(DataProblems, match=r"im2.jpg \(its tags are there\)"):
        load(flickr25k, data, **options)
    without = {"keep_without_text": True, "keep_without_image": True}
    pairs = load(flickr25k, data, **without, **options)
    assert pairs.ids.tolist() == ["im1", "im2", "im3", "im4", "im7", "im10"]
    assert np.flatnonzero(~pairs.has_image).tolist() == [1]
    assert np.flatnonzero(~with_presence(pairs).has_text).tolist() == [2]


def test_words_as_tokens_say_which_rows_have_a_text():
    bags, none = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]]), np.ones((3, 1))
    captions = ["sea sky", "", "dog"]
    words = ("sea", "dog", "sky")
    pairs = Collection("x", list("abc"), [b""] * 3, bags, captions, none, words, ("l",))
    tokens = represent(pairs, WordTokens(pairs, np.ones((3, 2))))
    assert with_presence(tokens).has_text.tolist() == [True, False, True]
    lines = TokenTable(np.ones((2, 4)), np.array([[0, 2], [0, 0]]))
    assert lines.has_tokens.tolist() == [True, False]


def test_such_a_run_learns_stand_ins():
    for name in ("keep_without_image", "keep_without_text", "allow_empty_text"):
        options = reader_options("folder", **{name: True})
        config = ConfigDict({"data": {"options": options}, "model": {}})
        assert needs_stand_ins(config) == (name != "allow_empty_text")
