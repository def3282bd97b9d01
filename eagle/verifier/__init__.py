"""A verifier: the large model whose features the draft learns.

In: a package, a folder or a hub repository. Out: a folder in transformers layout, and the model
that computes features and logits from it.
"""
