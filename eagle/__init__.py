"""Drafts for speculative decoding after EAGLE-1, from the data to the report.

In: a verifier, conversations, and settings from params.yaml or a command line.
Out: a trained draft in the layouts of three engines, its metrics, and a report.
"""
