"""The index: ids, removal, files that survive kills and betray damage, exports."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_aware_jax.retrieval import HammingIndex, IndexFileError, index, search


def random_codes(rows, seed=0, words=2):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, (rows, words), dtype=np.uint32)


def assert_answers(found, codes, ids, query, k=10):
    """`found` searches like a stable sort of (codes, ids) by distance, then id."""
    order = np.argsort(ids)
    distance, row = search(query, codes[order], k)
    got = found.search(query, k)
    np.testing.assert_array_equal(got[0], distance)
    np.testing.assert_array_equal(got[1], ids[order][row])


@pytest.fixture
def saved(tmp_path):
    found = HammingIndex(64)
    found.add(random_codes(500))
    found.save(tmp_path / "index")
    return found, tmp_path / "index"


def test_default_ids_count_on():
    found = HammingIndex(64)
    codes = random_codes(600)
    found.add(codes[:200])
    found.add(codes[200:])
    assert len(found) == 600
    assert_answers(found, codes, np.arange(600), random_codes(6, 1))
    np.testing.assert_array_equal(found.codes, codes)


@pytest.mark.parametrize("text", [False, True])
def test_own_ids_break_ties_in_ascending_order(text):
    codes = random_codes(5, words=1)[np.arange(400) % 5]  # many ties
    ids = np.random.default_rng(2).permutation(10_000)[:400] - 50
    if text:
        ids = np.array([f"ä{i}" for i in ids])
    found = HammingIndex(32)
    found.add(codes[:150], ids=ids[:150])
    found.add(codes[150:], ids=ids[150:])
    for queries in (1, 7):
        assert_answers(found, codes, ids, random_codes(queries, 1, words=1), k=99)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_history_equals_a_dictionary(data):
    truth, found = {}, HammingIndex(40)
    for step in range(data.draw(st.integers(1, 6))):
        if truth and data.draw(st.booleans()):
            gone = data.draw(st.lists(st.sampled_from(sorted(truth)), unique=True))
            found.remove(gone)
            for i in gone:
                del truth[i]
        else:
            free = [i for i in range(30) if i not in truth]
            new = data.draw(st.lists(st.sampled_from(free or [99]), unique=True))
            codes = random_codes(len(new), step) & np.array([7, 0xFF], np.uint32)
            found.add(codes, ids=np.array(new, int))
            truth |= dict(zip(new, codes, strict=True))
    assert len(found) == len(truth)
    if truth:
        ids = np.array(list(truth))
        codes = np.array(list(truth.values()))
        assert_answers(found, codes, ids, random_codes(2, 9) & np.uint32(0xFF))


def test_removed_default_ids_are_not_given_again():
    found = HammingIndex(64)
    found.add(random_codes(5))
    found.remove([4])
    found.add(random_codes(1, 1))
    assert found.ids.tolist() == [0, 1, 2, 3, 5]


def test_ids_that_do_not_fit_are_refused():
    for ids in (np.array([2**64 - 1], np.uint64), [2**63 - 1]):
        with pytest.raises(ValueError, match=r"ids are below 2\*\*63 - 1"):
            HammingIndex(64).add(random_codes(1), ids=ids)

    found = HammingIndex(64)
    found.add(random_codes(1), ids=[2**63 - 2])
    with pytest.raises(ValueError, match=r"1 ids from 9223372036854775807 on"):
        found.add(random_codes(1))
    with pytest.raises(ValueError, match=r"written as UTF-8.*'a\\udcff'"):
        HammingIndex(64).add(random_codes(2), ids=["a", "a\udcff"])
    for ids in (["a", 1], [True, False], [1, None], [2**70, 1]):
        with pytest.raises(ValueError, match="2 ids, integers or strings, got object"):
            HammingIndex(64).add(random_codes(2), ids=np.array(ids, object))


def test_columns_of_objects_are_taken_by_what_they_hold():
    for names in (["b", "a"], [2, 1], [np.int64(2), np.int32(1)]):
        found = HammingIndex(64)
        found.add(random_codes(2), ids=np.array(names, object))
        assert found.ids.tolist() == sorted(names)
        assert found.holds(np.array([names[0]], object)).tolist() == [True]
        found.remove(np.array(names[:1], object))
        np.testing.assert_array_equal(found.codes, random_codes(2)[1:])


def test_what_no_id_can_be_is_not_held(saved):
    found, _ = saved
    assert found.holds([]).shape == (0,) and found.get([]).shape == (0, 2)
    for ids in ([0.0], [True], ["0"], [b"0"], [None], [2**64 - 1], [-1]):
        assert found.holds(ids).tolist() == [False]
        with pytest.raises(ValueError, match="1 ids are not in the index, such as"):
            found.get(ids)
    for method in (found.holds, found.get):
        with pytest.raises(ValueError, match=r"expected ids \[n\], got \[\]"):
            method(1)


def test_its_codes_are_not_written_to(saved):
    found, path = saved
    for some in (found, HammingIndex.load(path)):
        with pytest.raises(ValueError, match="read-only"):
            some.codes[0] = 0
    np.testing.assert_array_equal(found.codes, random_codes(500))


def test_saving_follows_links_and_needs_a_folder(saved):
    found, path = saved
    link = path.parent / "link"
    link.symlink_to(path)
    found.add(random_codes(5, 1))
    found._saved = None
    found.save(link)
    assert link.is_symlink() and len(HammingIndex.load(path)) == 505
    for place in (path.parent, path.parent / "nowhere" / "index"):
        with pytest.raises(FileNotFoundError, match="a file in an existing folder"):
            found.save(place)


def test_loading_while_the_file_is_replaced(saved, monkeypatch):
    """Header, table and blocks come from one file, though another is there by now."""
    found, path = saved
    header_of = index.index_file.header_of

    def slow(file, name):
        header = header_of(file, name)
        other = HammingIndex(64)
        other.add(random_codes(9, 5))
        monkeypatch.undo()
        other.save(path)
        return header

    monkeypatch.setattr(index.index_file, "header_of", slow)
    np.testing.assert_array_equal(HammingIndex.load(path).codes, found.codes)
    assert len(HammingIndex.load(path)) == 9


def test_empty_index(tmp_path):
    found = HammingIndex(64)
    distance, ids = found.search(random_codes(3), 5)
    assert distance.shape == ids.shape == (3, 0)
    found.save(tmp_path / "index")
    assert len(HammingIndex.load(tmp_path / "index")) == 0


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda i: i.add(random_codes(2), ids=[7, 7]), "ids must be new, but 1 are"),
        (lambda i: i.add(random_codes(1), ids=[3]), "in the index already, such as"),
        (lambda i: i.add(random_codes(2), ids=[700]), "expected 2 ids, integers"),
        (lambda i: i.add(random_codes(1), ids=["a"]), "expected 1 ids, integers"),
        (lambda i: i.add(random_codes(2, words=1)), "64 bits fill 2 words"),
        (lambda i: i.remove([3, 900]), "1 ids are not in the index, such as 900[.]"),
        (lambda i: i.remove(["x"]), "the ids of this index are integers"),
        (lambda i: i.search(random_codes(1, words=3), 1), "64 bits fill 2 words"),
        (lambda i: i.search(random_codes(1), 0), "expected k to be a positive"),
    ],
)
def test_errors_leave_the_index_as_it_was(saved, action, message):
    with pytest.raises(ValueError, match=message):
        action(saved[0])
    assert len(saved[0]) == 500


@pytest.mark.parametrize("kind", ["counted", "own", "text"])
def test_save_and_load(tmp_path, kind):
    codes = random_codes(300)
    ids = {
        "counted": None,
        "own": np.arange(300) * 3 + 2,
        "text": np.array([f"ß{i}" for i in range(300)]),
    }[kind]
    found = HammingIndex(64)
    found.add(codes, ids=ids)
    found.remove([17 if ids is None else ids[17]])
    found.save(tmp_path / "index")
    loaded = HammingIndex.load(tmp_path / "index")
    np.testing.assert_array_equal(loaded.codes, found.codes)
    np.testing.assert_array_equal(loaded.ids, found.ids)
    ids = np.arange(300) if ids is None else ids
    kept = np.arange(300) != 17
    assert_answers(loaded, codes[kept], ids[kept], random_codes(5, 1))


def test_append_leaves_what_was_written(saved):
    found, path = saved
    before = path.read_bytes()
    loaded = HammingIndex.load(path)
    loaded.add(random_codes(50, 1))
    loaded.remove([3, 510])
    loaded.save(path)
    after = path.read_bytes()
    assert after[1024 : len(before)] == before[1024:]
    assert len(after) < len(before) + 50 * 8 + 1500
    again = HammingIndex.load(path)
    codes = np.concatenate([random_codes(500), random_codes(50, 1)])
    kept = np.setdiff1d(np.arange(550), [3, 510])
    np.testing.assert_array_equal(again.ids, kept)
    assert_answers(again, codes[kept], kept, random_codes(5, 2))
    again.save(path)
    assert path.read_bytes() == after  # nothing new


def test_many_appends_are_joined(saved):
    found, path = saved
    for seed in range(index.MAX_SEGMENTS + 1):
        found.add(random_codes(1, seed))
        found.save(path)
    loaded = HammingIndex.load(path)
    assert len(loaded) == 500 + index.MAX_SEGMENTS + 1
    assert len(loaded._segments) < 5
    np.testing.assert_array_equal(loaded.codes, found.codes)


def test_two_copies_of_an_index_do_not_mix(saved):
    found, path = saved
    other = HammingIndex.load(path)
    found.add(random_codes(10, 1))
    found.save(path)
    other.add(random_codes(20, 2))
    other.save(path)  # the file has moved on: written anew, the last save counts
    np.testing.assert_array_equal(HammingIndex.load(path).codes, other.codes)


def test_every_damaged_byte_is_found(saved):
    found, path = saved
    found.add(random_codes(20, 1), ids=np.arange(20) + 1000)
    found.save(path)
    good = path.read_bytes()
    places = np.random.default_rng(0).integers(0, len(good), 60)
    for place in [0, 9, 12, 600, 1023, 1024, len(good) - 1, *places]:
        bad = bytearray(good)
        bad[place] ^= 0x10
        path.write_bytes(bad)
        with pytest.raises(IndexFileError, match=str(path)):
            HammingIndex.load(path)


def test_every_truncation_is_found(saved):
    path = saved[1]
    good = path.read_bytes()
    for size in (0, 3, 8, 700, 1024, 2000, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(IndexFileError, match="truncated" if size else "not a Ham"):
            HammingIndex.load(path)


def test_foreign_files_and_later_versions(saved):
    path = saved[1]
    good = path.read_bytes()
    path.write_bytes(b"PK\x03\x04" + bytes(5000))
    with pytest.raises(IndexFileError, match="is not a Hamming index: .*PK"):
        HammingIndex.load(path)
    path.write_bytes(good[:8] + b"\x02" + good[9:])
    with pytest.raises(IndexFileError, match="format version 2; this package reads 1"):
        HammingIndex.load(path)
    with pytest.raises(FileNotFoundError):
        HammingIndex.load(path.parent / "nothing")


def test_an_interrupted_append_is_the_old_index(saved):
    found, path = saved
    with open(path, "ab") as file:
        file.write(b"half a block")
    loaded = HammingIndex.load(path)
    np.testing.assert_array_equal(loaded.codes, found.codes)
    loaded.add(random_codes(3, 1))
    loaded.save(path)
    assert len(HammingIndex.load(path)) == 503


WRITERS = """
import os, sys, numpy as np
from modal_aware_jax.retrieval import HammingIndex

def write(path, whole):
    index = HammingIndex.load(path)
    print(os.getpid(), flush=True)
    for _ in range(10_000):
        index.add(np.full((2000, 2), len(index), np.uint32))
        if whole:
            index._saved = None  # write the whole file each time
        index.save(path)

for line in sys.stdin:
    path, how = line.rstrip().split("\\t")
    if os.fork() == 0:
        write(path, how == "whole")
    os.wait()
    print("gone", flush=True)
"""


@pytest.fixture(scope="module")
def writers():
    """A process that forks a writer for each line, as importing JAX takes seconds."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    command = [sys.executable, "-c", WRITERS]
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("how", ["append", "whole"])
def test_killed_at_any_moment_the_file_is_whole(writers, tmp_path, how):
    path = tmp_path / "index"
    HammingIndex(64).save(path)
    sizes = []
    rng = np.random.default_rng(0)
    for _ in range(3):
        print(path, how, sep="\t", file=writers.stdin, flush=True)
        child = int(writers.stdout.readline())
        time.sleep(rng.uniform(0.02, 0.3))
        os.kill(child, signal.SIGKILL)
        assert writers.stdout.readline() == "gone\n"
        loaded = HammingIndex.load(path)
        assert len(loaded) % 2000 == 0
        rows = np.arange(len(loaded)) // 2000 * 2000
        np.testing.assert_array_equal(loaded.codes, np.stack([rows, rows], axis=1))
        sizes.append(len(loaded))
    assert sizes == sorted(sizes) and sizes[-1] > 0


def test_flat_faiss_is_exact():
    faiss = pytest.importorskip("faiss")
    found = HammingIndex(64)
    found.add(random_codes(3000), ids=np.arange(3000) * 2 + 1)
    query = random_codes(20, 1)
    exported = found.to_faiss()
    assert isinstance(exported, faiss.IndexBinaryIDMap)
    distance, ids = exported.search(query.view(np.uint8), 5)
    np.testing.assert_array_equal(distance, found.search(query, 5)[0])
    own = np.bitwise_count(found.codes[(ids - 1) // 2] ^ query[:, None]).sum(axis=2)
    np.testing.assert_array_equal(own, distance)


@pytest.mark.parametrize(
    ("kind", "least"), [("flat", 1.0), ("multihash", 0.9), ("ivf", 0.9), ("hnsw", 0.9)]
)
@pytest.mark.parametrize("first_id", [0, 500])
def test_faiss_recall_of_near_codes(kind, least, first_id):
    """Queries are stored codes with 3 bits flipped: the nearest is known."""
    pytest.importorskip("faiss")
    codes = random_codes(4000)
    found = HammingIndex(64)
    found.add(codes, ids=np.arange(4000) + first_id)
    query = codes[:200] ^ np.array([0b1001, 1 << 20], np.uint32)
    _, ids = found.to_faiss(kind).search(query.view(np.uint8), 1)
    assert np.mean(ids[:, 0] == np.arange(200) + first_id) >= least


def test_faiss_errors():
    pytest.importorskip("faiss")
    found = HammingIndex(64)
    with pytest.raises(ValueError, match="no codes to export"):
        found.to_faiss()
    found.add(random_codes(2), ids=["a", "b"])
    with pytest.raises(ValueError, match="FAISS ids are integers"):
        found.to_faiss()
    found = HammingIndex(64)
    found.add(random_codes(2))
    with pytest.raises(ValueError, match="expected kind 'flat', .* got 'best'"):
        found.to_faiss("best")


def test_lance_finds_the_same_distances(tmp_path):
    pytest.importorskip("lancedb")
    found = HammingIndex(64)
    found.add(random_codes(400), ids=[f"item {i}" for i in range(400)])
    query = random_codes(3, 1)
    order = found.ids
    table = found.to_lance(tmp_path, metadata={"length": [len(i) for i in order]})
    distance, _ = found.search(query, 5)
    for code, expected in zip(query, distance, strict=True):
        nearest = table.search(code.view(np.uint8)).distance_type("hamming").limit(5)
        rows = nearest.to_list()
        assert [int(r["_distance"]) for r in rows] == expected.tolist()
        for r in rows:
            stored = np.array(r["code"], np.uint8)
            own = found.codes[order == r["id"]].view(np.uint8)[0]
            np.testing.assert_array_equal(stored, own)
            assert r["length"] == len(r["id"])
    with pytest.raises(ValueError, match="expected 400 values in a column"):
        found.to_lance(tmp_path, metadata={"length": [1]})
