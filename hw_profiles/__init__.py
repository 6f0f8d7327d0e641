"""One TOML file per chip, and the reader: the only place where constants of a chip live."""
