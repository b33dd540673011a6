"""One file per job: `get_config(arg)` returns its config."""
