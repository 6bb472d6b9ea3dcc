"""`python -m ahriuwu_cli` is the console command."""

from ahriuwu_cli.cli.main import main

main()
