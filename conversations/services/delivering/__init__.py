"""What goes out: the outbox, the sends, and what providers say became of them."""
