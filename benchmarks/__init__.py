"""The benchmarks: what a meshed call costs beside other ways to make it. `python -m benchmarks --help`.

`rows` says what is compared and what the goal is, `contenders` how each side makes a call, `rounds` how CPU time is
taken. Each group of rows runs in a process of its own (`worker`), against servers that `__main__` starts; `report`
prints the results and renders them into the documentation.
"""
