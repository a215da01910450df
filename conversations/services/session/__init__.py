"""A session: how it opens, changes, ages, changes hands and ends, and the ledger of why."""
