"""What a person types: one file a verb, listed in `cli.table`; `--help` imports none of them."""
