"""Hosts: each turns its own kind of request into ours and our response back, and does nothing else."""
