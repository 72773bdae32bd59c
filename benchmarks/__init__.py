"""One module per claim, run as `python -m benchmarks.NAME [options]`.

Progress and tables are printed to stderr. The last line of stdout is one JSON object with the figures; `--out DIR` also
writes it there, with a plot and a Markdown report. `--max-minutes` stops cleanly, and the next call resumes there.
"""
