"""Deletion: retention policies and runs, legal holds, erasure of a person."""
