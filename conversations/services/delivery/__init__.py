"""Outgoing messages: the outbox, sending, receipts, reply windows, opt-outs."""
