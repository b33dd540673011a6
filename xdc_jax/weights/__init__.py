"""Weights of other systems and of this one: names, files, and published releases."""
