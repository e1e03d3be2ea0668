"""A2C whose process 1 has an error of its own as soon as all are together."""

import jax

from jaxrl_par import cli, presets
from jaxrl_par.cli.run import train


def broken(args, learner):
    if jax.process_index() == 1:
        raise KeyError("mine")
    return train(args, learner)


if __name__ == "__main__":
    cli.launch(presets.get("a2c")._replace(train=broken))
