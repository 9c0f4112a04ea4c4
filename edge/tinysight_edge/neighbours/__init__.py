"""What other people's software wants to be told beside the contract; all of it opt-in."""
