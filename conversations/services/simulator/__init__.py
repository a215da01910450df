"""The channel simulator: staff play a customer on any channel."""
