"""Training of a draft.

In: token sets, a verifier and a TrainConfig.
Out: a run folder with the best and the last draft, metrics, history, and states to resume from.
"""
