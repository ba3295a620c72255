"""All parts together: a table of LanceDB, or one index file."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from modal_aware_jax.encode_many.parts import codes_of
from modal_aware_jax.retrieval.index import HammingIndex


def write_lance(tables: Iterable[pa.Table], place: str, table: str = "codes") -> str:
    """Writes parts to a table, one after the other; an older one is replaced.

    Search it with `table.search(code).distance_type("hamming")`, `code` the bytes of a
    query's packed code.

    Args:
      tables: of `Output.tables`.
      place: a folder or an address that LanceDB can open.
      table: its name.

    Returns:
      The place.
    """
    try:
        import lancedb
    except ImportError as error:
        raise ValueError(
            "--lance needs LanceDB: pip install 'modal-aware-jax[lance]'."
        ) from error
    tables = iter(tables)
    first = next(tables)

    def all_batches():
        yield from first.to_batches()
        for some in tables:
            yield from some.to_batches()

    reader = pa.RecordBatchReader.from_batches(first.schema, all_batches())
    lancedb.connect(place).create_table(table, reader, mode="overwrite")
    return place


def write_index(tables: Iterable[pa.Table], num_bits: int, path: str) -> str:
    """Writes parts to an index file; ids must differ over all inputs.

    Args:
      tables: of `Output.tables`.
      num_bits: K.
      path: the file.

    Returns:
      The path.
    """
    index = HammingIndex(num_bits)
    tables = list(tables)
    ids = np.array([id_ for some in tables for id_ in some.column("id").to_pylist()])
    if len(ids):
        index.add(np.concatenate([codes_of(some) for some in tables]), ids=ids)
    index.save(path)
    return path
