"""`hardspike analyse`: what the papers look at, on the networks of any run, each analysis by its name."""
