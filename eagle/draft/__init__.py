"""The draft model, and what training, export and decoding share about it.

In: the verifier's config and head.
Out: the draft as a module and on disk, its predictions from its own features, a vocabulary.
"""
