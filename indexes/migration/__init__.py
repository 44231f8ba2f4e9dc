"""A stored index to Milvus and back, in a copy that can be trusted."""
