"""Structures: where they come from, how they are stored, split and referenced. Units are eV and Å."""
