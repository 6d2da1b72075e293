"""Making a stored set of images, shard by shard, exactly once; without Ray."""
