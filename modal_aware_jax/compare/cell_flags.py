"""The flags of commands that read finished cells: which methods, which code length."""

from absl import flags

flags.DEFINE_list("methods", [], "Methods, in this order; all by default.")
flags.DEFINE_integer("bits", None, "Code length; the one most cells have by default.")
