"""Changes of a conversation's state: closing, takeover, steps, details, assignment."""
