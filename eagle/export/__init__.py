"""Drafts in the layouts of serving engines, written and read.

In: a trained draft and the verifier's folder, or a draft that others published.
Out: folders that vLLM, SGLang and SafeAILab/EAGLE load, or the published draft as a module.
"""
