"""What Convo costs when it keeps a million sessions: `python -m tests.bench.million` (see __main__.py)."""
