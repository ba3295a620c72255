"""The parts of an experiment by their names in a config; `build` puts them together."""
