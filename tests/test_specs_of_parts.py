"""What actions may be: arrays of choices, and where choices begin."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.specs import sent
from jaxrl_par.types import Box, Discrete, MultiDiscrete, example


def test_specs_of_several_choices_are_equal_by_what_they_hold():
    one, same = (
        MultiDiscrete([[2, 3], [4, 5]]),
        MultiDiscrete(np.array([[2, 3], [4, 5]])),
    )
    assert one == same and hash(one) == hash(same) and one.dtype == np.int32
    assert one != MultiDiscrete([2, 3, 4, 5]) and one != MultiDiscrete([[2, 3]])
    assert one != MultiDiscrete([[2, 3], [4, 5]], start=1)
    assert one.shape == (2, 2) and one.sizes == (2, 3, 4, 5)
    assert example(one, 3).shape == (3, 2, 2)


@pytest.mark.parametrize("nvec", [3, [], [2, 0], [2.0, 3.0], [2**31]])
def test_choices_of_nothing_are_refused(nvec):
    with pytest.raises(ValueError, match="nvec must be an array of integers"):
        MultiDiscrete(nvec)


def test_a_start_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="start must be an integer"):
        MultiDiscrete([2, 3], start=[1, 1, 1])


def test_an_environment_gets_what_its_choices_begin_with():
    """S8: Discrete(3, start=-1) has a mean of 0, Discrete(1, start=2) is 2."""
    assert np.mean(sent(Discrete(3, start=-1), np.arange(3))) == 0
    assert sent(Discrete(1, start=2), np.zeros(4, np.int32)).tolist() == [2] * 4
    specs = {"steer": Box((1,)), "gear": MultiDiscrete([2, 3], start=[-1, 5])}
    action = {"steer": jnp.ones((1, 1)), "gear": jnp.array([[1, 2]], jnp.int32)}
    given = sent(specs, action)
    assert given["gear"].tolist() == [[0, 7]] and given["gear"].dtype == jnp.int32
    assert given["steer"] is action["steer"]
