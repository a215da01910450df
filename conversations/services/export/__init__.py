"""Exports: the transcript of a conversation, many conversations, and all that is known of a person.

Rows are read in batches, by key and not by a cursor, and files come in pieces. So memory holds one batch, and no
transaction is open while a client reads slowly.
"""
