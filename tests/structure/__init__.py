"""Figures of the structure: which imports run upward or in a circle, and how many files a journey enters.

    python -m tests.structure            a table
    python -m tests.structure --files    with the files of each journey and their functions
    python -m tests.structure --json     everything, as JSON

The imports are read from the source (`imports.py`). The journeys run on a test database (`test_journeys.py`).
"""
