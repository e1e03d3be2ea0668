"""A3C and Gorila: workers in threads that share parameters through a store."""
