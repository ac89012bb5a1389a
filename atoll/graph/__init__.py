"""What a node, a graph and a cache key are; validation; order. No torch, no HTTP, no disk."""
