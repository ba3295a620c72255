"""Methods x code lengths x seeds on one footing; the command is `compare.__main__`."""

from modal_aware_jax.compare.cells import Cell as Cell
from modal_aware_jax.compare.cells import Finished as Finished
from modal_aware_jax.compare.cells import cell_config as cell_config
from modal_aware_jax.compare.cells import find_cells as find_cells
from modal_aware_jax.compare.cells import fingerprint as fingerprint
from modal_aware_jax.compare.cells import read_cell as read_cell
from modal_aware_jax.compare.cells import record_of as record_of
from modal_aware_jax.compare.cells import write_cell as write_cell
from modal_aware_jax.compare.origin import provenance as provenance
from modal_aware_jax.compare.records import unpack_records as unpack_records
from modal_aware_jax.compare.records import write_records as write_records
from modal_aware_jax.compare.run import run_cells as run_cells
from modal_aware_jax.compare.summary import summarise as summarise
from modal_aware_jax.compare.write import write_comparison as write_comparison
