"""Words, vocabularies and vectors against hand values and scikit-learn."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from modal_aware_jax.data import text

DOCUMENTS = [
    "The red boat, the RED boat!",
    "a blue boat on a lake",
    "Ein großer Fluß: Москва-река 2007",
    "",
]


def test_tokens_are_lower_case_words_of_any_script():
    assert text.tokenize(DOCUMENTS[2]) == ["ein", "großer", "fluß", "москва-река"] + [
        "2007"
    ]
    assert text.tokenize("") == [] == text.tokenize("!? ...")
    assert text.tokenize("snake_case ﬁsh") == ["snake", "case", "fish"]


def test_bags_equal_those_of_scikit_learn():
    documents = [text.tokenize(document) for document in DOCUMENTS]
    vocabulary = text.tag_vocabulary(documents, min_count=1)
    theirs = CountVectorizer(
        tokenizer=text.tokenize,
        token_pattern=None,
        lowercase=False,
        binary=True,
        vocabulary=vocabulary,
    ).fit_transform(DOCUMENTS)
    bags = text.bag_of_words(documents, vocabulary)
    np.testing.assert_array_equal(bags, theirs.toarray())
    assert bags.dtype == np.uint8
    np.testing.assert_allclose(
        text.tf_idf(bags), TfidfTransformer().fit_transform(theirs).toarray(), rtol=1e-6
    )


def test_frequencies_can_come_from_the_training_pairs_alone():
    bags = np.array([[1, 1], [1, 0], [0, 1]])
    train = np.array([0, 1])
    fitted = TfidfTransformer().fit(bags[train])
    np.testing.assert_allclose(
        text.tf_idf(bags, train=train), fitted.transform(bags).toarray(), rtol=1e-6
    )


def test_a_vocabulary_counts_documents_and_breaks_ties_by_the_alphabet():
    documents = [["sky", "sea"], ["sea", "sky"], ["dog", "dog", "dog"], ["ant"]]
    assert text.tag_vocabulary(documents, min_count=2) == ("sea", "sky")
    assert text.tag_vocabulary(documents, min_count=1, max_size=3) == (
        "sea",
        "sky",
        "ant",
    )
    with pytest.raises(ValueError, match=r"4 words of 4 documents occurs in 3 .*in 2"):
        text.tag_vocabulary(documents, min_count=3)
    with pytest.raises(ValueError, match="none of the 2 documents has a word"):
        text.tag_vocabulary([[], []], min_count=1)


def test_vocabulary_files(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffsea\r\nfluß\r\n\r\n".encode())
    assert text.read_vocabulary(path) == ("sea", "fluß")
    path.write_text("sea\ndog\nsea\n")
    with pytest.raises(ValueError, match=r"words.txt.*1 occur more than once \(sea\)"):
        text.read_vocabulary(path)
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"words.txt is not UTF-8"):
        text.read_vocabulary(path)
