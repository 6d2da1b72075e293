"""Images from captions: the border to diffusers, and what decides an image."""
