"""Makes the files a project starts from, and those that are made from its database."""
