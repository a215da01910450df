"""Shared foundations: SQL helpers, locks, the writers of conversations and chunks, deadlines, redaction."""
