"""What a draft is worth: agreement, acceptance, speed-up and a proof of losslessness.

In: the verifier's folder, an exported draft, questions, and held-out conversations as tokens.
Out: metrics, their details with intervals, and a table with one row for each prompt.
"""
