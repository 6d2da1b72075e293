"""How the embedded world's models are made and measured."""
