"""Taking things elsewhere: a session's transcript, many sessions, all that is known of a person.

Everything is read a few rows at a time, by key and not by a cursor, and comes as pieces of a file: memory holds one
batch, and no transaction is open while somebody reads slowly.
"""
