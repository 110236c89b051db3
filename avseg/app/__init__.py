"""The web page: a video in, the sounding objects marked, looked at and taken home, on this machine alone.

`serve` (in `avseg.app.server`) is what ``avseg app`` calls. Only `avseg.app.page` and `avseg.app.server` need gradio.
"""
