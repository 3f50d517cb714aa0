"""The one engine that runs a stage for every caller: a command, a DVC stage, a member of a sweep, `reproduce`.

`context.py` says where a run is created and from what, `stages.py` which stages exist and what each one gets,
`engine.py` claims, runs and records them.
"""
