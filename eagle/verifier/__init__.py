"""The verifier: the large model whose features the draft learns.

In: an installed package, a folder or a hub repository.
Out: a folder in transformers layout with a manifest, and the model that computes features.
"""
