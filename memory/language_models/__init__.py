"""Language models: the providers' dialects behind one way to ask for an answer."""
