"""Groups, their averages, and what part of a loss is broken symmetry. Given the function that it measures.

elements        rotations, shifts and permutations as values; groups: SO(3), O(3), octahedral, products; designs
actions         how an element acts on arrays; graphs: on batches of structures; twist: the one primitive
"""
