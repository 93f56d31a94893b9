"""Sweeps: many runs, here or on a cluster. Describe a grid, group it into runs, execute them, collect the results.

`axes` (the grid) - `sweep` (the description) - `plan` (from points to tasks) - `folder` (the files) - `attempt` (one
try of one task, in a process of its own: `task`) - `executors` and `driver` - `results` (the table).
"""
