"""The sweep, which ages conversations, and reports about them: forecast, overdue work, metrics."""
