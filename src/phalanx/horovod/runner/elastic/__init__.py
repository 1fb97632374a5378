"""Jobs whose processes come and go: which they are is decided here, what they keep is `common.elastic`'s."""
