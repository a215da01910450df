"""Where ended sessions are remembered, behind one contract."""
