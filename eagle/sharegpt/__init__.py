"""Conversations to train on.

In: rows in ShareGPT's form or as messages, from files or from the hub.
Out: regular conversations, selected and split; every rejected row with its reason; counts.
"""
