"""Decoding with a key-value cache: vanilla, and speculative along chains and trees.

In: a verifier, a draft, a prompt and the shape of what is drafted. Out: a generation, the tokens
accepted in each verify step, and the time that each part took.
"""
