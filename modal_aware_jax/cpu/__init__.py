"""Rules for XLA's CPU backend: convolution, pooling and batch norm where it is slow.

Each computes what the native operation computes, and other platforms keep that one.
The backbones alone read this folder; its functions are imported from their files.
"""
