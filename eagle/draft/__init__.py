"""The draft itself, and what training, export and decoding share of it.

In: a verifier's config and head. Out: the draft module, its weights on disk, its vocabulary, and
its predictions from its own features.
"""
