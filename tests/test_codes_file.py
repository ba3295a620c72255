"""Codes made elsewhere: every accepted form, and errors that name the fix."""

import numpy as np
import pytest

from modal_aware_jax.hashing.codes import pack
from modal_aware_jax.retrieval import (
    CodesFileError,
    HammingIndex,
    IndexFileError,
    evaluate,
    read_codes,
    read_queries,
)


def write(tmp_path, **arrays):
    np.savez(tmp_path / "codes.npz", **arrays)
    return tmp_path / "codes.npz"


def random_bits(rows, num_bits, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (rows, num_bits))


@pytest.mark.parametrize("num_bits", [1, 12, 32, 40, 64, 100, 300])
def test_every_form_gives_the_same_words(tmp_path, num_bits):
    bits = random_bits(5, num_bits), random_bits(9, num_bits, 1)
    truth = [np.asarray(pack(b)) for b in bits]
    forms = [
        (lambda b: b, {}),
        (lambda b: b.astype(bool), {}),
        (lambda b: b.astype(np.uint8), {"num_bits": num_bits}),
        (lambda b: (2 * b - 1).astype(np.int8), {}),
        (lambda b: (2 * b - 1).astype(np.float32), {"num_bits": num_bits}),
        (lambda b: np.asarray(pack(b)), {"num_bits": num_bits}),
        (lambda b: np.packbits(b, axis=1), {"num_bits": num_bits}),
    ]
    if num_bits % 64 == 0:
        forms.append((lambda b: np.asarray(pack(b)).view(np.uint64), forms[2][1]))
    for form, extra in forms:
        if num_bits == 1 and "num_bits" in extra and form(bits[0]).dtype == np.uint8:
            continue  # one column of uint8: read as bits, or as octets
        path = write(tmp_path, query=form(bits[0]), database=form(bits[1]), **extra)
        found = read_codes(path)
        assert found.num_bits == num_bits
        assert found.query_labels is None
        np.testing.assert_array_equal(found.query, truth[0])
        np.testing.assert_array_equal(found.database, truth[1])


def test_names_of_pytorch_code_and_evaluate(tmp_path):
    bits = random_bits(5, 16), random_bits(50, 16, 1)
    labels = random_bits(5, 4, 2), random_bits(50, 4, 3)
    path = write(
        tmp_path,
        qB=2.0 * bits[0] - 1,
        rB=2.0 * bits[1] - 1,
        queryL=labels[0],
        retrievalL=labels[1],
    )
    *arrays, num_bits = read_codes(path)
    result = evaluate(*arrays, num_bits=num_bits)
    direct = evaluate(*(np.asarray(pack(b)) for b in bits), *labels, num_bits=16)
    assert result["map_expected"] == direct["map_expected"]
    assert result["map_index"] == direct["map_index"]


SIGNS = 2 * random_bits(4, 8) - 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"query": SIGNS}, "expected an array 'database', found only"),
        ({"query": SIGNS, "database": SIGNS * 0.5}, "relaxed codes: save their sign"),
        ({"query": SIGNS, "database": np.array([[-1, 0, 1]])}, "sign of a zero is no"),
        ({"query": SIGNS, "database": SIGNS * np.nan}, "database contains NaN"),
        ({"query": SIGNS, "database": SIGNS[:, :5]}, "has 8 bits, but database has 5"),
        ({"query": SIGNS, "database": SIGNS[0]}, r"expected database \[n, K\]"),
        (
            {"query": SIGNS, "database": SIGNS, "num_bits": 9},
            "num_bits is 9, but query",
        ),
        ({"query": SIGNS, "database": SIGNS, "num_bits": 0}, "one positive integer"),
        ({"query": SIGNS, "qB": SIGNS, "database": SIGNS}, "has query twice"),
        (
            {"query": SIGNS, "database": np.full((4, 1), 77, np.uint32)},
            "database is packed, .* add the number of bits",
        ),
        (
            {
                "query": np.full((4, 3), 77, np.uint32),
                "database": np.full((4, 2), 77, np.uint32),
                "num_bits": 64,
            },
            "64 bits fill 2 words of 32, but query has 3",
        ),
        (
            {"query": SIGNS, "database": SIGNS, "query_labels": SIGNS > 0},
            "labels of one side only",
        ),
        (
            {
                "query": SIGNS,
                "database": SIGNS,
                "query_labels": SIGNS > 0,
                "database_labels": (SIGNS > 0)[:3],
            },
            "expected database_labels of 4 rows",
        ),
        (
            {
                "query": SIGNS,
                "database": SIGNS,
                "query_labels": SIGNS > 0,
                "database_labels": (SIGNS > 0)[:, :3],
            },
            r"labels of one width, got \[4, 8\] and \[4, 3\]",
        ),
    ],
)
def test_errors_name_the_file_and_the_fix(tmp_path, arrays, message):
    path = write(tmp_path, **arrays)
    with pytest.raises(CodesFileError, match=message) as error:
        read_codes(path)
    assert str(path) in str(error.value)


def test_missing_files_labels_without_rows_and_damaged_members(tmp_path):
    with pytest.raises(CodesFileError, match="nothing.npz.* No such file"):
        read_codes(tmp_path / "nothing.npz")
    with pytest.raises(CodesFileError, match="not a readable .npz"):
        read_codes(tmp_path)
    arrays = {"query": SIGNS, "database": SIGNS}
    path = write(tmp_path, **arrays, query_labels=1, database_labels=1)
    with pytest.raises(CodesFileError, match=r"query_labels of 4 rows.*shape \[\]"):
        read_codes(path)
    np.savez_compressed(path, **arrays)
    good = path.read_bytes()
    for place in range(60, 200, 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            assert read_codes(path).query.tolist() == read_codes(path).database.tolist()
        except CodesFileError:
            pass


def test_files_that_are_no_npz(tmp_path):
    path = tmp_path / "codes.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(CodesFileError, match="not a readable .npz"):
        read_codes(path)
    np.save(tmp_path / "one.npy", SIGNS)
    with pytest.raises(CodesFileError, match="got a single array"):
        read_codes(tmp_path / "one.npy")
    np.savez(path, query=np.array([{}], object), database=SIGNS)
    with pytest.raises(CodesFileError, match="plain arrays"):
        read_codes(path)
    good = write(tmp_path, query=SIGNS, database=SIGNS)
    good.write_bytes(good.read_bytes()[:300])
    with pytest.raises(CodesFileError, match="not a readable .npz"):
        read_codes(good)


@pytest.mark.parametrize("num_bits", [8, 40, 64])
def test_queries_in_every_form(tmp_path, num_bits):
    bits = random_bits(5, num_bits)
    truth = np.asarray(pack(bits))
    for form in (bits, 2.0 * bits - 1, truth, np.packbits(bits, axis=1)):
        for name in ("query", "codes", "qB"):
            path = write(tmp_path, **{name: form})
            np.testing.assert_array_equal(read_queries(path, num_bits), truth)
    path = write(tmp_path, query=bits)
    with pytest.raises(CodesFileError, match=f"{num_bits} bits, but 99 are wanted"):
        read_queries(path, 99)
    with pytest.raises(CodesFileError, match="expected one array 'query'"):
        read_queries(write(tmp_path, other=bits), num_bits)


def test_search_over_an_index_file(tmp_path):
    from modal_aware_jax.modes.search_index import search_index_file

    bits = random_bits(50, 40)
    index = HammingIndex(40)
    index.add(np.asarray(pack(bits)), ids=[f"item {i}" for i in range(50)])
    index.save(tmp_path / "own.index")
    codes = write(tmp_path, query=2 * bits[:3] - 1)
    output = tmp_path / "found.npz"
    distances, ids = search_index_file(
        tmp_path / "own.index", codes, k=4, output=output
    )
    assert ids[:, 0].tolist() == ["item 0", "item 1", "item 2"]
    expected = np.sort((bits[:3, None] != bits).sum(axis=2), axis=1)[:, :4]
    np.testing.assert_array_equal(distances, expected)
    with np.load(output) as found:
        np.testing.assert_array_equal(found["ids"], ids)
    with pytest.raises(ValueError, match="query codes with --codes=FILE.npz"):
        search_index_file(tmp_path / "own.index", None)
    with pytest.raises(IndexFileError, match="nothing cannot be opened"):
        search_index_file(tmp_path / "nothing", codes)
    with pytest.raises(IndexFileError, match="is not a Hamming index"):
        search_index_file(codes, codes)
