"""The command line: what a person types. It prints, and computes nothing.

`app.py` has the application, with the commands in a file for each group: open it first, then `explain.py`. Nothing
heavy is imported before a command runs.
"""
