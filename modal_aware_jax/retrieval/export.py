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


def to_postgres(
    codes,
    ids,
    num_bits: int,
    connection,
    *,
    table: str = "codes",
    metadata: dict | None = None,
    hnsw: bool = True,
):
    """A table of PostgreSQL with ids, codes as `bit(K)` and metadata, for pgvector.

    Search it by Hamming distance with pgvector 0.7 or newer, `query` of `bit_strings`:

        SELECT id, code <~> %(query)s::bit(64) AS distance
        FROM codes ORDER BY code <~> %(query)s::bit(64) LIMIT 10

    Without its HNSW index that scans all rows and is exact; with it most of the nearest
    are found, more of them after `SET hnsw.ef_search = 200`.

    Args:
      codes: uint32 [N, Wd].
      ids: [N] integers or strings, the table's primary key.
      num_bits: K.
      connection: to the database, of psycopg; or its address, `postgresql://...`. The
        old table is there until the new one is complete.
      table: its name; a table of the same name is replaced.
      metadata: {column: N values}, texts, whole numbers or floats, in the order of ids.
      hnsw: whether to index the codes.
    """
    try:
        import psycopg
        from psycopg.sql import SQL, Identifier
    except ImportError as error:
        raise ImportError(
            "to_postgres needs psycopg: pip install 'modal-aware-jax[postgres]'."
        ) from error
    metadata = {name: np.asarray(values) for name, values in (metadata or {}).items()}
    kinds = {"U": "text", "i": "bigint", "u": "bigint", "f": "double precision"}
    for name, values in metadata.items():
        if name in ("id", "code") or len(values) != len(ids):
            raise ValueError(
                f"to_postgres: expected {len(ids)} values in a column not called id or "
                f"code, got {len(values)} in {name!r}."
            )
        if values.dtype.kind not in kinds:
            raise ValueError(
                f"to_postgres: the column {name!r} holds {values.dtype}; expected "
                "texts, whole numbers or floats."
            )
    if isinstance(connection, str):
        with psycopg.connect(connection) as opened:
            options = dict(table=table, metadata=metadata, hnsw=hnsw)
            return to_postgres(codes, ids, num_bits, opened, **options)
    columns = {"id": kinds[np.asarray(ids).dtype.kind] + " PRIMARY KEY"}
    columns |= {"code": f"bit({int(num_bits)}) NOT NULL"}
    columns |= {name: kinds[values.dtype.kind] for name, values in metadata.items()}
    names = SQL(", ").join(map(Identifier, columns))
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        cursor.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(table)))
        declared = SQL(", ").join(
            SQL("{} {}").format(Identifier(name), SQL(kind))
            for name, kind in columns.items()
        )
        cursor.execute(SQL("CREATE TABLE {} ({})").format(Identifier(table), declared))
        rows = SQL("COPY {} ({}) FROM STDIN").format(Identifier(table), names)
        with cursor.copy(rows) as copy:
            for start in range(0, len(ids), 10_000):
                part = slice(start, start + 10_000)
                strings = bit_strings(codes[part], num_bits)
                others = [values[part].tolist() for values in metadata.values()]
                ids_here = np.asarray(ids[part]).tolist()
                for row in zip(ids_here, strings, *others, strict=True):
                    copy.write_row(row)
        if hnsw:
            cursor.execute(
                SQL("CREATE INDEX ON {} USING hnsw (code bit_hamming_ops)").format(
                    Identifier(table)
                )
            )


def bit_strings(codes, num_bits: int) -> list[str]:
    """Codes as texts of 0 and 1, the first bit first: what PostgreSQL calls `bit(K)`.

    Args:
      codes: packed, uint32 [N, Wd].
      num_bits: K.

    Example:
      >>> bit_strings(np.array([[1], [6]], np.uint32), 4)
      ['1000', '0110']
    """
    octets = np.ascontiguousarray(codes, "<u4").view(np.uint8)
    bits = np.unpackbits(octets, axis=1, bitorder="little")[:, :num_bits]
    texts = np.ascontiguousarray(bits + ord("0")).view(f"S{num_bits}")[:, 0]
    return [text.decode() for text in texts]
