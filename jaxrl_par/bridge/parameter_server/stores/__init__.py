"""Parameters that many workers read and write: what differs between A3C's relatives.

A worker pulls parameters, computes a gradient, and pushes it. Who applies it, and who
waits for whom, is the store's affair:

    Lock       the worker itself, one at a time, under a mutex around the optimizer step
    Hogwild    the worker itself, in place and with no lock at all
    Server     k threads, each for its shard of the parameters, all in the same order

A push is atomic: before one instant it has had no effect, after it the update cannot be
lost. So a worker that is killed in the middle of a push loses its own gradient, and
nothing else. (Hogwild's writes have no such instant. That is its price.)

A worker sees its own push in its next pull. So a single worker computes, with any
store, what the synchronous program does.

Between two calls of `drain` a store remembers a few numbers of each update, and of each
worker only the last: no gradients, and no parameters but the newest.

Sources: Mnih et al., arXiv:1602.01783; Niu et al., arXiv:1106.5730; Nair et al.,
arXiv:1507.04296, section 4.
"""

from jaxrl_par.bridge.parameter_server.stores.hogwild import Hogwild
from jaxrl_par.bridge.parameter_server.stores.lock import Lock
from jaxrl_par.bridge.parameter_server.stores.server import Server
from jaxrl_par.bridge.parameter_server.stores.store import (
    Drained,
    MakeStore,
    Pulled,
    Push,
    Store,
    Update,
)

__all__ = [
    "Drained",
    "Hogwild",
    "Lock",
    "MakeStore",
    "Pulled",
    "Push",
    "Server",
    "Store",
    "Update",
]
