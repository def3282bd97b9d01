"""The report on a run, and the model card of its draft.

In: what earlier stages wrote to results/, and the paper's numbers.
Out: figures, sentences and charts for the templates in resources/pages.
"""
