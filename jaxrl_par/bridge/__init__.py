"""What topologies of threads are made of: supervision, queues, actors, reports."""
