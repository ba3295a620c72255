"""The output: a Parquet file of codes for each input, and what was left out.

    OUTPUT/encoding.json            the model and the settings of all parts
    OUTPUT/parts/NAME.parquet       id: string, code: list<uint8>[4·Wd]
    OUTPUT/problems/NAME.jsonl      of the inputs that had any

A part's metadata name its input and the input's version: a part is done where both are
those of now.
"""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from modal_aware_jax.encode_many.inputs import Input
from modal_aware_jax.encode_many.one_input import Encoded
from modal_aware_jax.encode_many.storage import opened, whole_file

FACTS = "encoding.json"
VERSION = b"modal_aware_jax.input"


class Output:
    """A folder of parts.

    Args:
      address: the folder, on a disk or in an object store.
    """

    def __init__(self, address: str):
        self.address = address
        self.files, self.path = opened(address.rstrip("/"))

    def begin(self, facts: dict) -> None:
        """Keeps what all parts have in common, or compares it with what is there.

        Raises:
          ValueError: the folder holds codes of another model or other settings.
        """
        path = f"{self.path}/{FACTS}"
        facts = json.loads(json.dumps(facts))
        if self.files.get_file_info(path).type == fs.FileType.File:
            with self.files.open_input_stream(path) as stream:
                there = _json(stream.read(), path)
            differ = [k for k in facts if there.get(k) != facts[k]]
            if differ:
                shown = ", ".join(f"{k} {there.get(k)}, now {facts[k]}" for k in differ)
                raise ValueError(
                    f"--output={self.address} holds codes made otherwise ({shown}): "
                    "codes of different models cannot be compared. Give another folder."
                )
            return
        with whole_file(self.files, path) as stream:
            stream.write(json.dumps(facts, indent=1).encode())

    def is_done(self, source: Input) -> bool:
        """Whether the part of an input is there, made of the input as it is now."""
        path = self._part(source)
        if self.files.get_file_info(path).type != fs.FileType.File:
            return False
        try:
            with self.files.open_input_file(path) as file:
                metadata = pq.read_schema(file).metadata or {}
        except (pa.ArrowException, OSError):
            return False  # it is written again
        return metadata.get(VERSION) == _version(source)

    def write(self, source: Input, encoded: Encoded) -> None:
        """Writes a part; its problems first, so that a part that is there has them."""
        path = f"{self.path}/problems/{source.name}.jsonl"
        if encoded.problems:
            with whole_file(self.files, path) as stream:
                for problem in encoded.problems:
                    line = json.dumps(problem._asdict(), ensure_ascii=False)
                    # Undecodable names are written as \udcXX escapes.
                    stream.write(f"{line}\n".encode("utf-8", "backslashreplace"))
        elif self.files.get_file_info(path).type == fs.FileType.File:
            self.files.delete_file(path)  # of an input that was mended
        table = to_table(encoded.ids, encoded.codes)
        table = table.replace_schema_metadata({VERSION: _version(source)})
        with whole_file(self.files, self._part(source)) as stream:
            pq.write_table(table, stream)

    def tables(self, sources: Sequence[Input]) -> Iterator[pa.Table]:
        """The parts of inputs, one after the other."""
        for source in sources:
            with self.files.open_input_file(self._part(source)) as file:
                yield pq.read_table(file).replace_schema_metadata(None)

    def _part(self, source):
        return f"{self.path}/parts/{source.name}.parquet"


def to_table(ids: Sequence[str], codes: np.ndarray) -> pa.Table:
    """Ids and packed codes uint32 [n, Wd] as columns `id` and `code`.

    A code is its 4·Wd bytes, the first bit the lowest of the first byte, as Lance and
    FAISS take it.
    """
    octets = np.ascontiguousarray(codes, "<u4").view(np.uint8)
    flat = pa.array(octets.ravel(), pa.uint8())
    code = pa.FixedSizeListArray.from_arrays(flat, 4 * codes.shape[1])
    return pa.table({"id": pa.array(ids, pa.string()), "code": code})


def codes_of(table: pa.Table) -> np.ndarray:
    """The packed codes of a table of `to_table`, uint32 [n, Wd].

    Example:
      >>> codes_of(to_table(["a"], np.array([[7, 8]], np.uint32)))
      array([[7, 8]], dtype=uint32)
    """
    column = table.column("code").combine_chunks()
    width = column.type.list_size
    return column.flatten().to_numpy().reshape(-1, width).view("<u4").astype(np.uint32)


def _version(source):
    parts = [source.address, source.version, source.first, source.last]
    return json.dumps(parts).encode()


def _json(content, path):
    try:
        found = json.loads(content)
        if isinstance(found, dict):
            return found
    except ValueError:
        pass
    raise ValueError(f"{path} is damaged. Give another folder, or delete this one.")
