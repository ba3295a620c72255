"""Embeddings with ids of one's own, searched by cosine: FAISS does the work.

FAISS because its flat index is exact and as fast as a matrix product, and because one
text names any of its others. usearch is an approximate index first: its exact search
of a large collection is several times slower.
"""

import os
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from modal_aware_jax.retrieval.similarity import GALLERY_ROWS, unit_rows
from modal_aware_jax.retrieval.top_k import check_k


class EmbeddingIndex:
    """Unit vectors of embeddings in a FAISS index, exact unless told otherwise.

    Args:
      features: F.
      factory: what FAISS builds, as `faiss.index_factory` reads it: 'Flat' compares
        with every embedding; 'HNSW32' or 'IVF1024,Flat' find most of the nearest in a
        part of the time.

    Example:
      >>> index = EmbeddingIndex(2)
      >>> index.add(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), ["a", "b", "c"])
      >>> cosines, ids = index.search(np.array([[0.0, 1.0]]), 2)
      >>> ids.tolist(), cosines.round(2).tolist()
      ([['c', 'b']], [[1.0, 0.7099999785423279]])
    """

    def __init__(self, features: int, factory: str = "Flat"):
        faiss = _faiss()
        self.features, self.factory = features, factory
        try:
            self._index = faiss.index_factory(
                features, factory, faiss.METRIC_INNER_PRODUCT
            )
        except RuntimeError as error:
            raise ValueError(
                f"EmbeddingIndex: FAISS knows no index {factory!r}. Take 'Flat', "
                "'HNSW32' or another of its factory strings."
            ) from error
        self.ids = np.zeros(0, "U1")

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, embeddings: np.ndarray, ids: Sequence[str]) -> None:
        """Adds embeddings [n, F] of any length under n new ids.

        An index that has to be trained is trained by the first that are added.

        Raises:
          ValueError: they are no finite rows of F, the ids are not new, or there are
            too few to train the index.
        """
        rows = self._unit("add", embeddings)
        ids = np.asarray(ids, dtype=str)
        if ids.shape != (len(rows),):
            raise ValueError(
                f"EmbeddingIndex.add: expected {len(rows)} ids, got {list(ids.shape)}."
            )
        both = np.concatenate([self.ids, ids])
        unique, counts = np.unique(both, return_counts=True)
        if len(unique) < len(both):
            raise ValueError(
                "EmbeddingIndex.add: ids must be new, but some occur twice, such as "
                f"{unique[counts > 1][0].item()!r}."
            )
        if not len(rows):
            return
        if not self._index.is_trained:
            try:
                self._index.train(rows)
            except RuntimeError as error:
                reason = str(error).rpartition("failed: ")[2]
                raise ValueError(
                    f"EmbeddingIndex.add: FAISS cannot train {self.factory!r} by "
                    f"{len(rows)} embeddings ({reason}). Add more at first, or take "
                    "'Flat' or 'HNSW32'."
                ) from error
        self._index.add(rows)
        self.ids = both

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of every query: descending cosine, then order of adding.

        Args:
          queries: [Q, F].
          k: how many; clipped to the size of the index.

        Returns:
          (cosines float32 [Q, k], ids [Q, k]). Where an approximate index found fewer,
          the rest has cosine -inf and the id ''.
        """
        k = check_k("EmbeddingIndex.search", k, len(self))
        rows = self._unit("search", queries)
        if not k or not len(rows):
            return np.zeros((len(rows), k), np.float32), np.zeros((len(rows), k), "U1")
        cosines, places = self._index.search(rows, k)
        cosines = np.where(places < 0, -np.inf, cosines)
        order = np.lexsort((places, -cosines))
        cosines, places = (np.take_along_axis(x, order, 1) for x in (cosines, places))
        return cosines.astype(np.float32), np.where(places < 0, "", self.ids[places])

    def _unit(self, method, embeddings):
        rows = np.asarray(embeddings)
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise ValueError(
                f"EmbeddingIndex.{method}: expected embeddings [n, {self.features}], "
                f"got {list(rows.shape)}."
            )
        name = f"EmbeddingIndex.{method}"
        unit = np.empty(rows.shape, np.float32)
        for start in range(0, len(rows), GALLERY_ROWS):
            part = slice(start, start + GALLERY_ROWS)
            unit[part] = unit_rows(name, "embeddings", rows[part])
        return unit

    def save(self, path: str | os.PathLike) -> None:
        """Writes one file, which appears complete or not at all."""
        path = pathlib.Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial.npz")
        np.savez(
            partial,
            ids=self.ids,
            factory=self.factory,
            features=self.features,
            index=_faiss().serialize_index(self._index),
        )
        partial.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "EmbeddingIndex":
        """Reads what `save` wrote; ValueError where it is damaged."""
        try:
            with open(path, "rb") as file, np.load(file) as kept:
                index = cls(int(kept["features"]), str(kept["factory"]))
                index.ids = kept["ids"]
                index._index = _faiss().deserialize_index(kept["index"])
        except (
            *(zipfile.BadZipFile, KeyError, EOFError, ValueError),
            *(TypeError, RuntimeError),  # of another file of NumPy's, and of FAISS
        ) as error:
            raise ValueError(
                f"EmbeddingIndex.load: {path} is damaged, or no index of embeddings. "
                "Delete it: it is made anew."
            ) from error
        return index


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "EmbeddingIndex needs FAISS: pip install 'modal-aware-jax[search]'."
        ) from error
    return faiss
