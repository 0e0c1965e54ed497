"""The schema's history. A new version: change tables.py, add versions/NNNN_what.py; a test compares the two."""
