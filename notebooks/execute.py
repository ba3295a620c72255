"""Runs the notebooks and writes them with their outputs: `make notebooks`.

    python notebooks/execute.py [quickstart ...]

The sources are text/NAME.py (jupytext's percent format, for diffs that can be read).
The repository's address in badges and first cells is taken from pyproject.toml. Refuses
to write an output that names this machine or a folder of it, or a file above 200 kB.
"""

import argparse
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

HERE = pathlib.Path(__file__).parent
NAMES = ("quickstart", "use_in_your_model", "inspect", "tpu_training")
MAX_BYTES = 200_000
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
    NotebookClient(notebook, timeout=timeout, resources=here).execute()
    for cell in notebook.cells:
        cell["metadata"] = {}  # times of execution
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})


def machine_names(text: str) -> set[str]:
    """What of this machine a text names: host, home, folders."""
    places = {socket.gethostname(), os.path.expanduser("~"), os.getcwd()}
    places |= {str(HERE.resolve().parent), tempfile.gettempdir(), sys.prefix}
    return {place for place in places if len(place) > 3 and place in text}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    for name in parser.parse_args().names:
        start, text = time.time(), source(name)
        (HERE / "text" / f"{name}.py").write_text(text)
        notebook = read(text)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, folder)
        written = nbformat.writes(notebook, version=4) + "\n"
        if found := machine_names(written):
            raise SystemExit(f"{name}: an output names this machine: {sorted(found)}.")
        if len(written) > MAX_BYTES:
            raise SystemExit(
                f"{name}: {len(written):,} bytes, more than {MAX_BYTES:,}."
            )
        (HERE / f"{name}.ipynb").write_text(written)
        print(f"{name}: {len(written):,} bytes, {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
