"""`python -m hardspike` is the `hardspike` command."""

from hardspike.cli import main

main()
