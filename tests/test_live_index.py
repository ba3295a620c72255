"""An index that changes: like a dict of codes, and nothing acknowledged is lost."""

import os
import shutil

import numpy as np
import pytest

from modal_aware_jax.retrieval.index import HammingIndex
from modal_aware_jax.serve import live_index
from modal_aware_jax.serve.change_log import Change, ChangeLog, ChangeLogError
from modal_aware_jax.serve.live_index import Conflict, LiveIndex, Missing, Mistake


def code(value):
    return np.array([value], np.uint32)


def add(name, value, picture=b"", **facts):
    return Change({"add": name, "code": code(value).tobytes().hex(), **facts}, picture)


def remove(name):
    return Change({"remove": name})


def make(path, values, ids):
    index = HammingIndex(32)
    if len(values):
        index.add(np.array(values, np.uint32)[:, None], ids=ids)
    index.save(path)
    return path


@pytest.fixture
def path(tmp_path):
    return make(tmp_path / "my.index", [0, 1, 3, 7], ["a", "b", "c", "d"])


def expected(items, value, k):
    """By a loop over a dict: ascending distance, then ascending id."""
    near = sorted((bin(value ^ v).count("1"), name) for name, v in items.items())
    return near[:k]


def test_it_is_a_dict_that_is_searched(path):
    rng = np.random.default_rng(0)
    items = {"a": 0, "b": 1, "c": 3, "d": 7}
    index = LiveIndex(path)
    for step in range(60):
        if rng.random() < 0.4 and items:
            name = rng.choice(sorted(items)).item()
            index.change([remove(name)])
            del items[name]
        else:
            name, value = f"n{step % 17}", int(rng.integers(0, 256))
            (result,) = index.change([add(name, value)])
            assert isinstance(result, Conflict) == (name in items)
            items.setdefault(name, value)
        if step % 20 == 19:
            index.save()
        if step % 25 == 24:
            index.close()
            index = LiveIndex(path)
        query = int(rng.integers(0, 256))
        assert index.search(code(query)[None], 7) == [expected(items, query, 7)]
        assert len(index) == len(items)
    for name, value in items.items():
        assert index.holds(name) and index.code_of(name) == code(value)
    index.close()
    saved = HammingIndex.load(path)
    assert saved.ids.tolist() == sorted(items)


def test_what_is_asked_for_wrongly_changes_nothing(path):
    index = LiveIndex(path)
    results = index.change(
        [add("a", 9), add("x", 9), add("x", 8), remove("y"), remove("x"), add("x", 5)]
    )
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["Conflict", "Record", "Conflict", "Missing", "Record", "Record"]
    assert "an item 'a' already" in str(results[0])
    assert index.code_of("x") == code(5) and index.code_of("a") == code(0)
    with pytest.raises(Missing, match="There is no 'y'"):
        index.code_of("y")
    for name in ("", "two\nlines", "a" * 201, "nul\0"):
        with pytest.raises(Mistake, match="1 to 200 characters"):
            index.new_id(name)
    index.close()


def test_new_ids_are_made_up(path, tmp_path):
    index = LiveIndex(path)
    names = [r.facts["add"] for r in index.change([add(None, 1), add(None, 2)])]
    index.change([remove(names[1])])
    (third,) = index.change([add(None, 2)])
    assert len({*names, third.facts["add"]}) == 3
    index.close()
    index = LiveIndex(path)
    (fourth,) = index.change([add(None, 2)])
    assert fourth.facts["add"] not in {*names, third.facts["add"]}
    index.close()
    index = LiveIndex(make(tmp_path / "numbers.index", [0, 1], [3, 10]))
    made = index.change([add(None, 1), add(None, 2), remove(3)])
    assert [r.facts.get("add") for r in made] == [11, 12, None]
    assert index.search(code(0)[None], 9) == [[(1, 10), (1, 11), (1, 12)]]
    for number in (-7, -(2**63), 2**63 - 2):
        assert index.id_of(str(number)) == number
    for text in ("seven", str(2**63 - 1), str(-(2**63) - 1)):
        with pytest.raises(Mistake, match="whole numbers"):
            index.id_of(text)
    index.change([add(2**63 - 2, 1)])
    (result,) = index.change([add(None, 1)])
    assert "No larger number is left" in str(result)
    index.close()


def test_an_empty_index_takes_its_first_item(tmp_path):
    index = LiveIndex(make(tmp_path / "empty.index", [], []))
    assert index.search(code(0)[None], 3) == [[]] and not index.holds("a")
    index.change([add("a", 4)])
    assert index.search(code(0)[None], 3) == [[(1, "a")]]
    index.close()


@pytest.mark.parametrize("is_rewritten", [False, True])
def test_an_index_of_numbers_keeps_numbers_when_it_is_emptied(tmp_path, is_rewritten):
    path = make(tmp_path / "numbers.index", [0, 1], [3, 10])
    index = LiveIndex(path)
    index.change([remove(3), remove(10)])
    index.close()
    if is_rewritten:  # as by a save of many segments: the file has no ids left
        HammingIndex.load(path).save(tmp_path / "other")
        (tmp_path / "other").replace(path)
    index = LiveIndex(path)
    (made,) = index.change([add(None, 4)])
    assert made.facts["add"] == 11 and index.id_of("5") == 5
    index.close()
    index = LiveIndex(path)
    assert index.search(code(0)[None], 3) == [[(1, 11)]]
    index.close()


def test_many_changes_are_folded_into_the_file(path, monkeypatch):
    monkeypatch.setattr(live_index, "FOLD_AT", 5)
    index = LiveIndex(path)
    index.change([add(f"n{i}", i) for i in range(4)])
    assert len(HammingIndex.load(path)) == 4
    index.change([remove("a"), remove("n0")])
    assert len(HammingIndex.load(path)) == 4
    index.change([add("z", 0), add("y", 1)])
    assert HammingIndex.load(path).ids.tolist() == sorted(
        ["b", "c", "d", "n1", "n2", "n3", "z", "y"]
    )
    assert index.search(code(0)[None], 2) == [[(0, "z"), (1, "b")]]

    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HammingIndex, "save", full)
    assert len(index.change([add(f"m{i}", i) for i in range(6)])) == 6
    assert index.search(code(0)[None], 2) == [[(0, "m0"), (0, "z")]]
    index.close()
    monkeypatch.undo()
    index = LiveIndex(path)
    assert len(index) == 14 and len(HammingIndex.load(path)) == 14
    index.close()


def test_killed_at_any_byte_it_has_all_that_was_acknowledged(path, tmp_path):
    """The log cut anywhere, beside the index as it was saved at any of the moments."""
    index = LiveIndex(path)
    log = path.with_name("my.index.changes")
    states, saved = [(log.stat().st_size, {"a": 0, "b": 1, "c": 3, "d": 7})], [path]
    for step, change in enumerate(
        [add("e", 5, b"picture"), remove("a"), remove("e"), add("a", 6), add("e", 9)]
    ):
        index.change([change])
        items = dict(states[-1][1])
        if "remove" in change.facts:
            del items[change.facts["remove"]]
        else:
            items[change.facts["add"]] = {1: 5}.get(step, [5, 0, 0, 6, 9][step])
        states.append((log.stat().st_size, items))
        copy = tmp_path / f"copy{step}.index"
        shutil.copy(path, copy)
        saved.append(copy)
        if step == 2:
            index.save()
    index.close()
    shutil.copy(path, tmp_path / "last.index")
    whole = log.read_bytes()
    for size in range(len(whole) + 1):
        reached = [i for i, (end, _) in enumerate(states) if end <= size]
        number = max(reached, default=0)
        items = states[number][1]
        for old in {saved[0], saved[number]}:  # saved no later than acknowledged
            target = tmp_path / "killed.index"
            shutil.copy(old, target)
            (tmp_path / "killed.index.changes").write_bytes(whole[:size])
            if old is saved[0] and old == path:
                make(target, [0, 1, 3, 7], ["a", "b", "c", "d"])
            again = LiveIndex(target)
            found = {name: int(again.code_of(name)[0]) for name in again.ids.tolist()}
            assert found == items, size
            if "e" in again.added and items["e"] == 5:
                assert again.picture("e") == b"picture"
            again.close()


def test_a_damaged_log_is_refused_not_shortened(path):
    index = LiveIndex(path)
    index.change([add("e", 5)])
    index.change([add("f", 6)])
    index.close()
    log = path.with_name("my.index.changes")
    whole = log.read_bytes()
    ends = []
    for place in range(8, len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0x10
        log.write_bytes(broken)
        try:
            opened = ChangeLog(log)
        except ChangeLogError as error:
            assert "is damaged at byte" in str(error)
        else:  # only the last one, which was perhaps never acknowledged
            ends.append(len(opened.records))
            opened.close()
    assert set(ends) == {1} and len(ends) < len(whole) // 2
    log.write_bytes(whole + bytes(4096))  # the end that a power cut may leave
    opened = ChangeLog(log)
    assert len(opened.records) == 2 and log.stat().st_size == len(whole)
    with pytest.raises(ChangeLogError, match="open in another process"):
        ChangeLog(log)
    opened.close()
    log.write_bytes(b"something else")
    with pytest.raises(ChangeLogError, match="is no log of changes"):
        ChangeLog(log)


@pytest.mark.parametrize(
    "facts",
    [
        {"add": 7, "code": "0000000f"},
        {"add": "a", "code": "0000000f" * 3},
        {"add": "a"},
        {"add": "a", "code": "none"},
        {"add": ["a"], "code": "0000000f"},
    ],
)
def test_the_log_of_another_index_is_told_by_its_name(path, facts):
    log = ChangeLog(path.with_name(path.name + ".changes"))
    log.append([Change(facts)])
    log.close()
    with pytest.raises(ChangeLogError, match=r"\.changes holds changes of another"):
        LiveIndex(path)


def test_a_full_disk_is_told_and_leaves_no_half_record(path, monkeypatch):
    index = LiveIndex(path)
    log = path.with_name("my.index.changes")
    index.change([add("e", 5)])
    before, write = log.read_bytes(), os.pwrite

    def short(file, data, place):
        if place > len(before) + 10:
            raise OSError(28, "No space left on device")
        return write(file, data[:11], place)

    monkeypatch.setattr(os, "pwrite", short)
    error, missing = index.change([add("f", 6), remove("nothing")])
    assert isinstance(error, OSError) and isinstance(missing, Missing)
    assert log.read_bytes() == before and not index.holds("f")
    monkeypatch.undo()
    index.change([add("f", 7)])
    index.close()
    assert LiveIndex(path).code_of("f") == code(7)


def test_a_log_of_mostly_the_past_is_rewritten(tmp_path):
    log = ChangeLog(tmp_path / "log")
    for i in range(20):
        log.append([add("a", i, bytes(100)), remove("a"), add(f"b{i}", i, b"kept")])
    before = [(r.facts, log.picture(r)) for r in log.kept()]
    log.tidy(least=1 << 20)
    assert len(log.records) == 60
    log.tidy(least=0)
    assert len(log.records) == 21
    assert [(r.facts, log.picture(r)) for r in log.kept()] == before
    log.append([add("c", 1)])
    log.close()
    again = ChangeLog(tmp_path / "log")
    assert len(again.records) == 22 and os.listdir(tmp_path) == ["log"]
    again.close()


def test_ids_are_found_and_their_codes_given():
    index = HammingIndex(32)
    index.add(np.array([[5], [6], [7]], np.uint32), ids=["long name", "b", "a"])
    index.add(np.array([[8]], np.uint32), ids=["c"])
    index.remove(["b"])
    names = ["a", "b", "c", "long name", "long name and more"]
    assert index.holds(names).tolist() == [True, False, True, True, False]
    assert index.get(["c", "a"]).tolist() == [[8], [7]]
    assert not index.holds([1, 2]).any() and index.get([]).shape == (0, 1)
    with pytest.raises(ValueError, match="1 ids are not in the index, such as 'b'"):
        index.get(["a", "b"])
