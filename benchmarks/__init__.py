"""One module per claim, run as `python -m benchmarks.NAME [options]`.

Progress and tables go to stderr. The last line of stdout is one JSON object with the figures; `--out DIR` also writes
it there, with plots and a Markdown report. `--max-minutes` stops cleanly, and a later call goes on where it stopped.
"""
