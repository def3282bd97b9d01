"""Documents as the draft sees them.

In: conversations, the template and the verifier's tokenizer. Out: token ids, loss masks and bounds,
memory-mapped.
"""
