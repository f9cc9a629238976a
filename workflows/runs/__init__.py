"""Runs of the pipeline on a cluster: started from a WorkflowTemplate, followed to their end, and listed.

Nothing here needs Hera: the template is on the cluster already, and CI starts runs from a small image.
"""
