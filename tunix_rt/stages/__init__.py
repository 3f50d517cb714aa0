"""One module per stage: prepare → train → predict → evaluate → report. Each reads and writes files in known formats."""
