"""Contact sheets of runs, sweeps and differences."""
