"""The chat template, and the proof that it marks the replies and nothing else.

In: the verifier's tokenizer, conversations, and the file of a template or none.
Out: a template with generation markers, rendered text, and a report of the proof.
"""
