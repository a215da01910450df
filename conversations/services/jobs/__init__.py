"""Scheduled and reporting work: the sweep, the forecast, overdue work, metrics."""
