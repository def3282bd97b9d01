"""Conversations to train on.

In: rows of ShareGPT's or the messages form, from files or the hub. Out: regular conversations,
chosen and split, and every other row with its reason.
"""
