"""The stages of the workflow, one script each.

In: params.yaml, and files that dvc.yaml names as dependencies of the stage.
Out: files that dvc.yaml names as its outputs, and one line that says what was written.
"""
