"""How fast, and compared with whom: one file a question (`bench_*.py`), one harness for all."""
