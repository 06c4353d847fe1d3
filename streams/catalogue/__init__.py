"""Items: their cards, vectors and signals enter from compacted topics, one in-memory matrix leaves."""
