"""Suites of other libraries as streams: "pgx::connect_four", "brax::ant".

`table` says which there are and what each needs, `listing` reads their names, and a
module for each suite adapts its bare transition: never a step that resets by itself.
`from_pgx` and its siblings adapt an environment of one's own.
"""

from typing import TYPE_CHECKING

from jaxrl_par.lazy import lazily

if TYPE_CHECKING:
    from jaxrl_par.envs.suites.brax import from_brax
    from jaxrl_par.envs.suites.craftax import from_craftax
    from jaxrl_par.envs.suites.jumanji import from_jumanji
    from jaxrl_par.envs.suites.navix import from_navix
    from jaxrl_par.envs.suites.octax import from_octax
    from jaxrl_par.envs.suites.pgx import from_pgx
    from jaxrl_par.envs.suites.playground import from_playground
    from jaxrl_par.envs.suites.xland import from_xland

__getattr__, __dir__ = lazily(__name__)
__all__ = [
    "from_brax",
    "from_craftax",
    "from_jumanji",
    "from_navix",
    "from_octax",
    "from_pgx",
    "from_playground",
    "from_xland",
]
