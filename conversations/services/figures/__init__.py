"""Figures: the sums of each quarter of an hour, kept once it is over, and the reports that are made of them."""
