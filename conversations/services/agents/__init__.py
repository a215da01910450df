"""Sessions whose agent runs elsewhere, by the sync protocol."""
