"""The run on many machines: Ray actors that each hold a model and pull shards; imports Ray."""
