"""Embeddings by cosine: against a product of matrices, by hand, and through a file."""

import io

import numpy as np
import pytest

from modal_aware_jax.retrieval.embedding_index import EmbeddingIndex


def test_it_finds_what_a_product_of_matrices_finds(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 12)) * rng.uniform(0.1, 9, size=(300, 1))
    queries = rng.normal(size=(7, 12))
    index = EmbeddingIndex(12)
    index.add(rows[:200], [f"row {i}" for i in range(200)])
    index.add(rows[200:], [f"row {i}" for i in range(200, 300)])
    cosines = queries @ rows.T
    cosines /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    order = np.argsort(-cosines, axis=1)[:, :9]
    for some in (index, None):
        if some is None:
            index.save(tmp_path / "rows.embeddings")
            some = EmbeddingIndex.load(tmp_path / "rows.embeddings")
        found, ids = some.search(queries, 9)
        assert [[f"row {i}" for i in row] for row in order] == ids.tolist()
        expected = np.take_along_axis(cosines, order, axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.embeddings"]


def test_equal_cosines_stand_in_the_order_of_adding():
    index = EmbeddingIndex(2)
    index.add(np.array([[0, 1], [2, 0], [0, 0], [1, 0], [3, 0]]), list("abcde"))
    cosines, ids = index.search(np.array([[5.0, 0.0], [0.0, 0.0]]), 9)
    assert ids[0].tolist() == ["b", "d", "e", "a", "c"]
    assert cosines[0].tolist() == [1, 1, 1, 0, 0] and not cosines[1].any()
    nothing, none = EmbeddingIndex(2).search(np.ones((3, 2)), 4)
    assert nothing.shape == none.shape == (3, 0)


def test_very_short_and_very_long_rows_are_compared_by_their_angles():
    index = EmbeddingIndex(2)
    index.add(np.float32([[1e-20, 0], [0, 1e25], [1, 1]]), ["tiny", "huge", "one"])
    cosines, ids = index.search(np.array([[1.0, 0.0]]), 3)
    assert ids.tolist() == [["tiny", "one", "huge"]]
    np.testing.assert_allclose(cosines, [[1, np.sqrt(0.5), 0]], atol=1e-6)


def test_other_indexes_by_faiss_own_names(tmp_path):
    rows = np.random.default_rng(0).normal(size=(400, 8))
    names = [str(i) for i in range(400)]
    for factory in ("HNSW16", "IVF4,Flat"):
        index = EmbeddingIndex(8, factory)
        index.add(rows, names)
        index.save(tmp_path / "index")
        _, ids = EmbeddingIndex.load(tmp_path / "index").search(rows, 1)
        assert np.mean(ids[:, 0] == names) > 0.95
    with pytest.raises(ValueError, match="FAISS knows no index 'Unknown'"):
        EmbeddingIndex(8, "Unknown")


def test_what_cannot_be_indexed_is_refused(tmp_path):
    index = EmbeddingIndex(3)
    with pytest.raises(ValueError, match=r"expected embeddings \[n, 3\], got \[2, 4\]"):
        index.add(np.ones((2, 4)), ["a", "b"])
    with pytest.raises(ValueError, match=r"expected 2 ids, got \[1\]"):
        index.add(np.ones((2, 3)), ["a"])
    with pytest.raises(ValueError, match="some occur twice, such as 'a'"):
        index.add(np.ones((2, 3)), ["a", "a"])
    with pytest.raises(ValueError, match="search: .* found NaN or infinity in embed"):
        index.search(np.full((1, 3), np.nan), 1)
    for k in (0, 1.5):
        with pytest.raises(ValueError, match=f"k to be a positive integer, got {k}"):
            index.search(np.ones((1, 3)), k)
    untrained = EmbeddingIndex(3, "IVF1024,Flat")
    untrained.add(np.ones((0, 3)), [])
    with pytest.raises(ValueError, match=r"'IVF1024,Flat' by 2 .*Add more at first"):
        untrained.add(np.ones((2, 3)), ["a", "b"])
    assert not len(untrained)
    assert not len(index)
    index.add(np.ones((1, 3)), ["a"])
    index.save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    other, foreign = io.BytesIO(), io.BytesIO()
    np.save(other, np.ones(3))
    np.savez(foreign, features=3, factory="Flat", ids=["a"], index=np.uint8([1, 2]))
    files = (other.getvalue(), foreign.getvalue())
    for cut in (b"", whole[: len(whole) // 2], b"no archive", *files):
        (tmp_path / "cut").write_bytes(cut)
        with pytest.raises(ValueError, match="cut is damaged, or no index"):
            EmbeddingIndex.load(tmp_path / "cut")
