"""The stores of ended conversations, behind one contract."""
