"""Runs the notebooks and writes them with their outputs: `make notebooks`.

    python notebooks/execute.py [quickstart ...]

The sources are text/NAME.py (jupytext's percent format, for diffs that can be read).
The repository's address in badges and first cells is taken from pyproject.toml. Refuses
to write an output that names this machine or a folder of it; files above 200 kB fail.
"""

import argparse
import base64
import copy
import io
import os
import pathlib
import re
import socket
import sys
import tempfile
import time
import tomllib

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = pathlib.Path(__file__).parent
NAMES = (
    "quickstart",
    "use_in_your_model",
    "inspect",
    "tpu_training",
    "match_pictures_and_sentences",
    "classify_posts",
)
MAX_BYTES = 200_000
LARGE_PICTURE, WIDEST = 20_000, 800  # characters of a PNG, pixels of its JPEG
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def repository() -> str:
    """`owner/name` of the repository, from pyproject.toml."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/").strip("/")


def source(name: str) -> str:
    """The text of a notebook, with the repository's address in it."""
    text = (HERE / "text" / f"{name}.py").read_text()
    text = re.sub(r"(github\.com/)[\w.-]+/modal_aware_jax", rf"\1{repository()}", text)
    return re.sub(r"(/github/)[\w.-]+/modal_aware_jax", rf"\1{repository()}", text)


def read(text: str) -> nbformat.NotebookNode:
    """The notebook of a text, without outputs; equal texts give equal notebooks."""
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for number, cell in enumerate(notebook.cells):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
    return notebook


def execute(notebook: nbformat.NotebookNode, folder, timeout: float = 1200) -> None:
    """Runs all cells in `folder` and keeps what they show, without their warnings."""
    here = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook, timeout=timeout, resources=here, coalesce_streams=True
    )
    client.execute()
    for cell in notebook.cells:
        cell["metadata"] = {}  # times of execution
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})


def lighten(notebook: nbformat.NotebookNode, quality: int) -> None:
    """Large pictures become JPEG files where these are smaller."""
    for cell in notebook.cells:
        for out in cell.get("outputs", ()):
            encoded = out.get("data", {}).get("image/png", "")
            if len(encoded) < LARGE_PICTURE:
                continue
            picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
            picture.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality, optimize=True)
            jpeg = base64.b64encode(buffer.getvalue()).decode()
            if len(jpeg) < len(encoded):
                out.data = nbformat.from_dict({"image/jpeg": jpeg, **out.data})
                del out.data["image/png"]


def write_small(notebook: nbformat.NotebookNode) -> str:
    """The file's text, its pictures compressed as little as the limit allows."""
    for quality in (90, 80, 70, 60, 50):
        light = copy.deepcopy(notebook)
        lighten(light, quality)
        written = nbformat.writes(light, version=4) + "\n"
        if len(written.encode()) <= MAX_BYTES:
            break
    return written


def machine_names(text: str) -> set[str]:
    """What of this machine a text names: host, home, folders."""
    places = {socket.gethostname(), os.path.expanduser("~"), os.getcwd()}
    places |= {str(HERE.resolve().parent), tempfile.gettempdir(), sys.prefix}
    return {place for place in places if len(place) > 3 and place in text}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    status = 0
    for name in parser.parse_args().names:
        start, text = time.time(), source(name)
        (HERE / "text" / f"{name}.py").write_text(text)
        notebook = read(text)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, folder)
        written = write_small(notebook)
        if found := machine_names(written):
            raise SystemExit(f"{name}: an output names this machine: {sorted(found)}.")
        (HERE / f"{name}.ipynb").write_text(written)
        print(
            f"{name}: {len(written):,} bytes, {time.time() - start:.0f} s", flush=True
        )
        if len(written) > MAX_BYTES:
            print(
                f"{name} has more than {MAX_BYTES:,} bytes: make its pictures smaller"
            )
            status = 1
    raise SystemExit(status)


if __name__ == "__main__":
    main()
