"""The pictures that the command line makes: contact sheets of runs, sweeps and differences."""
