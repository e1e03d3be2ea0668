"""Keys of a pool's environments."""

import jax
import numpy as np

from jaxrl_par import random
from jaxrl_par.bridge.factory import ActorFactory


class Keys(ActorFactory):
    """Makes no actors."""

    def actor(self, index, **options):
        raise NotImplementedError


def test_no_two_actors_or_generations_have_the_same_environments():
    key = random.key(0)
    factory = Keys(key)
    keys = [factory.env_key(actor, n) for actor in range(3) for n in range(3)]
    words = np.stack([jax.random.key_data(x) for x in keys])
    assert len(np.unique(words, axis=0)) == len(words)
    # Those of generation 0 are what devices of a sharded program would have.
    _, env_key, _ = jax.random.split(key, 3)
    expected = jax.random.key_data(jax.random.fold_in(env_key, 2))
    np.testing.assert_array_equal(words[2 * 3], expected)
