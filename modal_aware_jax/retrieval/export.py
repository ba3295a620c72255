"""Codes and ids in the formats of other search engines, all optional extras."""

import numpy as np


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "to_faiss needs FAISS: pip install 'modal-aware-jax[search]'."
        ) from error
    return faiss


def to_faiss(codes, ids, kind: str = "flat"):
    """A FAISS binary index that answers with these ids.

    'flat' is exact. The others trade recall for speed, and their own attributes
    tune it: 'ivf' `nprobe`, 'hnsw' `hnsw.efSearch`, 'multihash' `nflip`. Where ids are
    not 0, 1, 2, ..., all but 'ivf' are wrapped, and the tuned index is
    `faiss.downcast_IndexBinary(wrapper.index)`. FAISS orders equal distances as it
    likes; `search` does not.

    Args:
      codes: uint32 [N, Wd]; FAISS sees 32 * Wd bits.
      ids: int64 [N].
      kind: 'flat', 'multihash', 'ivf' or 'hnsw'.

    Returns:
      A `faiss.IndexBinary`.
    """
    faiss = _faiss()
    if ids.dtype.kind == "U":
        raise ValueError("to_faiss: FAISS ids are integers, but these are strings.")
    if not len(codes):
        raise ValueError("to_faiss: there are no codes to export.")
    octets = np.ascontiguousarray(codes, "<u4").view(np.uint8)
    bits = 8 * octets.shape[1]
    numbered = bool((ids == np.arange(len(ids))).all())
    if kind == "ivf":
        lists = int(max(1, min(4 * np.sqrt(len(codes)), len(codes) / 39)))
        quantizer = faiss.IndexBinaryFlat(bits)
        index = faiss.IndexBinaryIVF(quantizer, bits, lists)
        index.nprobe = max(1, lists // 8)
        index.train(octets)
        index.add_with_ids(octets, ids)
        return index
    if kind == "flat":
        index = faiss.IndexBinaryFlat(bits)
    elif kind == "hnsw":
        index = faiss.IndexBinaryHNSW(bits, 32)
        index.hnsw.efSearch = 256
    elif kind == "multihash":
        index = faiss.IndexBinaryMultiHash(bits, bits // 16, 16)
        index.nflip = 2
    else:
        raise ValueError(
            "to_faiss: expected kind 'flat', 'multihash', 'ivf' or 'hnsw', got "
            f"{kind!r}."
        )
    if numbered:
        index.add(octets)
        return index
    wrapper = faiss.IndexBinaryIDMap(index)
    wrapper.add_with_ids(octets, ids)
    return wrapper


def to_lance(codes, ids, uri, table: str = "codes", metadata: dict | None = None):
    """A LanceDB table of ids, codes and metadata, which many machines can share.

    Search it with `table.search(code).distance_type("hamming")`, where `code` is a
    query's bytes, `packed[i].view(np.uint8)`. Without an index LanceDB scans all rows
    and is exact, except that it orders equal distances as it likes.

    Args:
      codes: uint32 [N, Wd].
      ids: [N] integers or strings.
      uri: a directory, or any address LanceDB can open; a table of the same name
        there is replaced.
      table: name of the table.
      metadata: {column: N values}, in the order of `ids`.

    Returns:
      The LanceDB table, with columns id, code (4 * Wd bytes) and the metadata.
    """
    try:
        import lancedb
        import pyarrow as pa
    except ImportError as error:
        raise ImportError(
            "to_lance needs LanceDB: pip install 'modal-aware-jax[lance]'."
        ) from error
    metadata = metadata or {}
    for name, values in metadata.items():
        if name in ("id", "code") or len(values) != len(ids):
            raise ValueError(
                f"to_lance: expected {len(ids)} values in a column not called id or "
                f"code, got {len(values)} in {name!r}."
            )
    octets = np.ascontiguousarray(codes, "<u4").view(np.uint8)
    flat = pa.array(octets.ravel(), pa.uint8())
    columns = {
        "id": pa.array(ids),
        "code": pa.FixedSizeListArray.from_arrays(flat, octets.shape[1]),
        **{name: pa.array(values) for name, values in metadata.items()},
    }
    database = lancedb.connect(str(uri))
    return database.create_table(table, pa.table(columns), mode="overwrite")
