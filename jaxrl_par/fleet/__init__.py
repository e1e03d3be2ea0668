"""The roles of the bridge in other processes, on any node, by Ray core.

A member of a pool is a proxy here, whose work a Ray actor does: schedules, queues,
restarts, records and reports are those of threads, and so is the order in which things
happen. What is new is the way there: `cluster` is what knows Ray, `process` is the
other side, `parameters` are held by an actor with a name, from which others pull, and
`shards` of a parameter server by as many processes.

Only functions and arrays travel, between processes of one run; nothing is read from
disk. What makes environments may be anybody's function: it is sent as Ray sends
functions, those of a notebook or a script as a whole, those of a module by its name.
"""
