"""Decoding with a key-value cache: vanilla, and speculative along a chain or a tree of tokens.

In: a verifier, a draft, a prompt, and the shape of what is drafted.
Out: the generated tokens, the tokens accepted in each verify step, and the time of each part.
"""
