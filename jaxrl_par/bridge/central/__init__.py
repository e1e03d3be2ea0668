"""Central inference (SEED RL, GA3C): one place acts for all environments.

Source: Espeholt et al., SEED RL, arXiv:1910.06591, sections 3.1 and 3.3; Babaeizadeh et
al., GA3C, arXiv:1611.06256, section 3.
"""
