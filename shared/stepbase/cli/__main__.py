"""`python -m stepbase.cli`: the same as `stepbase`."""

from stepbase.cli.main import main

main(prog_name="stepbase")
