"""Many runs, here or on a cluster: describe a grid, group it into runs, execute, collect.

`axes` (the algebra) - `sweep` (the description) - `plan` (points to tasks) - `folder` (what is on the disk) -
`attempt` (one try of one task, in a process of its own: `task`) - `executors` and `driver` - `results` (the table).
"""
