"""``python -m tinysight_contract.schemas``: write the schemas again after a change of the types."""

from pathlib import Path

from tinysight_contract.schemas import write

write(Path(__file__).parent)
