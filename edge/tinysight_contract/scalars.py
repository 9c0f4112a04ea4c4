"""The values that payloads are made of: times, ids, shares, boxes."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

__all__ = ["Box", "Count", "Digest", "Id", "Millis", "Point", "Time", "Unit"]

Time = Annotated[datetime, Meta(tz=True, description="UTC, ISO 8601")]
Id = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}(?![\s\S])")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])", description="SHA-256 of the bundle file")]
Unit = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]
Millis = Annotated[float, Meta(ge=0.0, description="milliseconds")]
Box = Annotated[tuple[Unit, Unit, Unit, Unit], Meta(description="x1, y1, x2, y2 in 0..1 of the frame")]
Point = Annotated[tuple[Unit, Unit], Meta(description="x, y in 0..1 of the frame")]
