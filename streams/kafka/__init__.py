"""How records come in and go out: the batched Faust transport, transactions, bulk reads, the partitioner."""
