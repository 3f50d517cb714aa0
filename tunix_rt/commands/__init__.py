"""One command per file: its docstring is its help, `main(arguments)` is the command. Substance lives elsewhere."""
