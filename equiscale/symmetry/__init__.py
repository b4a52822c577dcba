"""Groups, their averages, and what part of a loss is broken symmetry. Given the function that it measures.

elements        rotations, shifts and permutations as values; groups: SO(3), O(3), octahedral, products; designs
actions         how an element acts on arrays; graphs: on batches of structures; twist: the one primitive
losses          what a decomposition can be taken of; invariance: what it takes for granted, checked
estimate        the parts of a loss, per structure; decomposition: over structures, with errors
parts           the same in torch, differentiable
degrees         which angular degrees an error is made of; lie: its bound by derivatives
frames          any potential in principal-axes frames; head: EScAIP's force head in closed form
hessian         spectra of losses, of functions that are frozen; plane: their values along two directions
"""
