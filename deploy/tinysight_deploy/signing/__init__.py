"""Keys, and what is signed with them: the metadata of The Update Framework."""
