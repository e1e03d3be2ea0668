"""Actors without JAX, in threads or in processes that never import it.

They act with `numpy_actor` and with numbers drawn from the same keys, bit for bit, as
actors by JAX do. Logits differ in their last bits, and so do log-probabilities. An
action is another one only where a drawn number lies between both. So a run acted in one
way is repeated in that way.
"""
