"""Deletion: policies, holds, erasure of a person, deletions at providers."""
