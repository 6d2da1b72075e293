"""Recognizers that know their CLIP: made of a run, used on photographs."""
