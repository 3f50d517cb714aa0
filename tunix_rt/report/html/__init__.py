"""`report.html`: one self-contained page of a run, or of two side by side; no part of it needs a network.

`page.py` puts it together, `answers.py` holds what is shown of every answer, `charts.py` the Vega-Lite specifications,
`headline.py` the sentences at the top, `embed.py` what is packed into the file. `static/` has the template, the styles,
the scripts (plain ones, one after the other, in the order of `SCRIPTS`) and Vega.
"""
