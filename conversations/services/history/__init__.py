"""Ended conversations: remembering, archiving, recall, search."""
