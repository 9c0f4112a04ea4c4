"""``agent.toml``: its types, how it is read and checked, and how it changes while the agent runs."""
