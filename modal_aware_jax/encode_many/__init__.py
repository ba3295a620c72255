"""Collections larger than a machine: files of pairs to files of codes, in any number.

`__main__.py` is the command. An input file is the unit of work: it is encoded as a
whole (`one_input.py`), its codes appear complete or not at all (`parts.py`), and
whatever was stopped, killed or added goes on with the files that are not done yet.
Here one process does them in turn; `on_ray.py` spreads them over the actors of Ray.
"""
