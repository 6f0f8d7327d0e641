"""What a run leaves for people: every number once, as charts and as one page that needs neither network nor script."""
