"""Features of images and captions from a frozen CLIP, stored once and read back by key."""
