"""The one engine that does a stage, whoever calls: a command, a script of DVC's, a member of a sweep, `reproduce`.

`context.py` says where a run is made and what for, `stages.py` which stages there are and what each is asked for,
`engine.py` claims, does and records.
"""
