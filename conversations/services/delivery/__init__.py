"""Outgoing messages: the outbox, sending, receipts, reply windows, throttles, opt-outs, read marks."""
