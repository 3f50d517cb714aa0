"""One verb a file: its docstring is its help, `main(arguments) -> exit code` is the verb. Substance lives elsewhere."""
