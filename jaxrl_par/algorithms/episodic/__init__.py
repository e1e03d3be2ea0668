"""Episodic control: actions by what was met before, in a table for each action.

    MFEC    keys are random projections of observations, values the best returns
    NEC     keys are a network's, values bootstrap, and both follow gradients too

Tables are part of what is learned, the same on every device: each device looks up its
own rows, and all devices write the rows of all as one batch. What a device exchanges
for an update of MFEC is those rows; of NEC also the gradient, which is as large as the
table.

Sources: Blundell et al., arXiv:1606.04460 (MFEC); Pritzel et al., arXiv:1703.01988
(NEC).
"""

from jaxrl_par.algorithms.episodic.config import (
    EpisodicConfig,
    MFECConfig,
    NECConfig,
)
from jaxrl_par.algorithms.episodic.mfec import MFECState, mfec
from jaxrl_par.algorithms.episodic.nec import NECState, nec

__all__ = [
    "EpisodicConfig",
    "MFECConfig",
    "MFECState",
    "NECConfig",
    "NECState",
    "mfec",
    "nec",
]
