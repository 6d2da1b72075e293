"""What a search varies, what a trial may look at, and what a search leaves."""
