"""One page a stage: prepare → train → predict → evaluate → report. Each reads and writes files in known formats.

A stage takes the identity sections that `config.identity.STAGES` lists for it, positionally and in that order;
what it needs besides (folders, execution sections) follows by keyword.
"""
