"""Readers of an own collection, one format a file; `tables.py` chooses among them."""
