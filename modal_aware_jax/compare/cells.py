"""A cell of a comparison: one method, code length and seed, and its record on disk."""

import hashlib
import json
import pathlib
import re
from typing import NamedTuple

import numpy as np

from modal_aware_jax.build import choose_method, settled, task_of
from modal_aware_jax.compare.origin import provenance

# Values of `config.training` that say how a run is carried out, not what comes out.
HOW = (
    *("workers", "cache_dir", "cached_means", "checkpoint_steps", "tensor_parallel"),
    *("validation_search", "validation_database"),
)


class Cell(NamedTuple):
    """One run of a comparison; 0 bits where the task has no codes.

    >>> Cell("gmu", 64, 0).folder
    'gmu-64-0'
    """

    method: str
    bits: int
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.method}-{self.bits}-{self.seed}"

    def __str__(self):
        bits = f", {self.bits} bits" if self.bits else ""
        return f"{self.method}{bits}, seed {self.seed}"


class Finished(NamedTuple):
    """What a finished cell left.

    Attributes:
      result: of the task's evaluation.
      seconds: of training, validation and evaluation; None where it was not recorded.
      made: commit, versions and hardware, as `provenance` gives them.
    """

    result: dict
    seconds: float | None = None
    made: dict | None = None


def cell_config(config, cell: Cell):
    """The config of one cell: the given one with method, code length and seed.

    A method brings its own loss. Where the given config names another loss than its
    own method's, that one is every cell's.
    """
    values = config.copy_and_resolve_references()
    task = task_of(config)
    own = choose_method(task, config.model.method).loss
    if config.loss.name == own:
        values.loss.name = choose_method(task, cell.method).loss
    values.model.method = cell.method
    if task.comparison.by_bits:
        values.model.num_bits = cell.bits
    values.seed = cell.seed
    return values.lock()


def fingerprint(config) -> str:
    """A short hash of all values that a run's outcome depends on.

    Of folders and files it knows the names alone: finished cells may be reported on
    another machine.
    """
    values = placeless(settled(config))
    for key in HOW:
        values["training"].pop(key, None)
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def placeless(values: dict) -> dict:
    """Settled values with the names alone of the data's folder and of the weights.

    Where they lay on a machine tells nobody anything.

    >>> placeless({"data": {"dir": "/a/b"}, "backbone": {"weights": "hf-hub:a/b"}})
    {'data': {'dir': 'b'}, 'backbone': {'weights': 'hf-hub:a/b'}}
    """
    for section, key in (("data", "dir"), ("backbone", "weights")):
        place = values.get(section, {}).get(key)
        if place and not place.startswith("hf-hub:"):
            values[section][key] = pathlib.Path(place).name
    return values


def record_of(config, finished: Finished) -> dict:
    """What is kept of a finished cell, with the hash of the config that gave it."""
    result = {key: _plain(value) for key, value in finished.result.items()}
    return {
        "fingerprint": fingerprint(config),
        "result": result,
        "seconds": finished.seconds,
        "made": finished.made or provenance(),
    }


def write_cell(directory: pathlib.Path, record: dict) -> None:
    """Marks a cell as finished, by its `record_of`."""
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "cell.json.partial"
    partial.write_text(json.dumps(record))
    partial.replace(directory / "cell.json")


def read_cell(directory: pathlib.Path, config) -> Finished | None:
    """A finished cell, or None where it is not; refuses one of another config."""
    path = directory / "cell.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        stored = record["fingerprint"]
        result = task_of(config).comparison.read(record["result"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}). Delete this file: "
            "the cell is then evaluated again from its last checkpoint."
        ) from None
    if stored != fingerprint(config):
        raise ValueError(
            f"{directory} holds a finished cell of another config. Choose another "
            "--workdir, or delete that folder to run the cell anew."
        )
    return Finished(result, record.get("seconds"), record.get("made"))


def find_cells(config, workdir: pathlib.Path) -> tuple[dict, list[str]]:
    """All finished cells of a config in a workdir, whoever asked for them.

    Returns:
      {cell: finished}, and a message for each cell that had to be left out.
    """
    found, left_out = {}, []
    methods = task_of(config).methods
    for path in sorted(workdir.glob("*/cell.json")):
        match = re.fullmatch(r"(\w+)-(\d+)-(\d+)", path.parent.name)
        if match is None or match[1] not in methods:
            left_out.append(f"{path.parent} is no cell METHOD-BITS-SEED.")
            continue
        cell = Cell(match[1], int(match[2]), int(match[3]))
        try:
            found[cell] = read_cell(path.parent, cell_config(config, cell))
        except ValueError as error:
            left_out.append(str(error))
    return found, left_out


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
