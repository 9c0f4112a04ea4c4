"""``python -m tinysight_deploy`` is ``tinysight``."""

from tinysight_deploy.cli import main

main()
