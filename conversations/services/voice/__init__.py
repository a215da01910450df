"""Phone calls: each request of the provider is answered with the next instruction of the call."""
