"""What a run is for, one task a file: its losses, its scores, what its reports show.

Training loop, checkpoints, data, comparison, robustness, export and reports know no
task by name; they ask the `Task` of the config. `experiment/tasks.py` lists them.
"""
