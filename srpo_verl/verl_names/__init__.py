"""verl's private names, and those of Ray, vLLM and TransferQueue beneath it, in one room.

`clauses` names each with what it is taken to be and what in srpo_verl stands on it; `contract` and `check` look for
them in a verl's source, whatever its version: `python -m srpo_verl.verl_names [folder of another verl]`. `driver` and
`worker` are the accesses that are no override, by process, each with its assertion.
"""
