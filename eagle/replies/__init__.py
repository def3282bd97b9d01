"""Replies that the verifier itself writes (paper, Table 6).

In: conversations, the chat template, and the verifier or a server of it.
Out: the same conversations with new replies; a journal of them, for an interrupted run.
"""
