"""The command line `autoseq`: its commands, and what they show."""
