"""From files of results to Markdown, a function for each; see `figures.py`."""
