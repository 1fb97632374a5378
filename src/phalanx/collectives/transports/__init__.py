"""How tensors get from rank to rank: one interface, one file a way. `group` chooses among them."""
