"""Replies written by the verifier itself (paper, Table 6).

In: conversations, and the verifier or a server of it. Out: the same conversations, answered anew;
a journal keeps what an interrupted run has written.
"""
