"""The assistant's reply: who owes one, what the model is given, what it said, and what became of it."""
