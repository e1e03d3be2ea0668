"""Runs as pages for a browser: one file each, which needs no network."""

from jaxrl_par.training.pages.comparison import write_comparison
from jaxrl_par.training.pages.run import write_report

__all__ = ["write_comparison", "write_report"]
