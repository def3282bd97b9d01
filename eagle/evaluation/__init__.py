"""What a draft is worth.

In: a verifier's folder, an exported draft, questions and held-out documents. Out: agreement,
acceptance, speed-up and the proof of losslessness, with their intervals.
"""
