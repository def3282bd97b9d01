"""The chat template, and the proof that it marks the replies and nothing else.

In: the verifier's tokenizer, a template or none, conversations. Out: a marked template, rendered
text with the replies' places, and the proof's report.
"""
