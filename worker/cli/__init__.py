"""The command line `autoseq`: its commands and their output."""
