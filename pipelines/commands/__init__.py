"""What each `windrow` command does; `pipelines/cli.py` only names them."""
