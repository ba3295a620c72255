"""Hashing: heads that give relaxed bits, and the codes made of their signs.

The codes are used by module, as in `hashing.codes.pack(codes)`.
"""

from modal_aware_jax.hashing import codes as codes
from modal_aware_jax.hashing.divide_and_encode import DivideAndEncodeHead
from modal_aware_jax.hashing.head import HashHead

__all__ = [
    "DivideAndEncodeHead",
    "HashHead",
    "codes",
]
