"""One module per stage: prepare → train → predict → evaluate → report. Each reads and writes files in known formats.

A stage takes the identity sections that `config.identity.STAGES` lists for it, positionally and in that order;
what else it needs (folders, execution sections) follows by keyword.
"""
