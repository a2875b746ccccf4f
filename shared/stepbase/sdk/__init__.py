"""The function side: apps, functions, steps, and the endpoint a server calls.

`replay` and `verbs` are pure; `step`, `sync_step` and `execution` drive them; `endpoint` answers requests and
knows no web framework (that is `stepbase.hosts`).
"""
