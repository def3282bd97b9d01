"""The documents that the draft is trained and validated on.

In: conversations, the chat template and the verifier's tokenizer.
Out: token ids, loss masks and the bounds of documents, in memory-mapped files.
"""
