"""Drafts in the layouts of others.

In: a trained draft and the verifier's folder, or a published draft. Out: folders that vLLM, SGLang
and SafeAILab/EAGLE load, or a draft of our own form.
"""
