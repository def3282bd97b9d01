"""The report on a run, and the model card of its draft.

In: the files in results/. Out: sentences, charts and the paper's numbers beside ours, for the pages
in resources/pages.
"""
