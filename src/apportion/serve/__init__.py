"""The workbench: a page on this machine's own address where models are explained.

`server.py` answers: open it first. `request.py` checks what is asked, `_jobs.py` does the work, `messages.py` has the
types of the answers.
"""
