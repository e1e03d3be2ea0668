"""Evolution strategies: workers that play parts of a generation, for one who learns."""
