"""Each algorithm is a function: `algorithm(network, optimizer, config) -> Agent`.

Unless it says otherwise, the network maps steps to (distribution of the action, values
[...]), the optimizer clips, schedules and scales the gradient, and the config may hold
traced numbers, so that a population can be vmapped over them. A config that is out of
range is refused with a ValueError.
"""
