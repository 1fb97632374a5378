"""The programs that `bench_collectives` starts, one for each peer, and what they share. Nothing here is installed."""
