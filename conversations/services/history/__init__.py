"""Ended conversations: remembering them, archiving, recall in later ones, search."""
