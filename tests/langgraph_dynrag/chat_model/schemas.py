"""Schemas and tools that replies are constrained to."""

from enum import Enum
from typing import Annotated, Literal

from langchain_core.tools import tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

METHODS = ["function_calling", "json_schema"]


class Kind(Enum):
    VILLAGE = "Städtchen"
    CITY = "東京"


class Road(BaseModel):
    """A road."""

    to: Annotated[str, Field(max_length=4)]
    paved: bool


class Town(BaseModel):
    """A town."""

    name: Annotated[str, Field(min_length=1, max_length=5)]
    kind: Kind
    side: Literal["left", "right"]
    size: Annotated[int, Field(ge=1, le=9)] | None = None
    roads: Annotated[list[Road], Field(max_length=1)] = []


class TownDict(TypedDict):
    """A town."""

    side: Literal["left", "right"]
    paved: bool


SIDE = {
    "title": "Side",
    "type": "object",
    "properties": {"side": {"enum": ["left", "right"]}, "paved": {"type": "boolean"}},
    "required": ["side", "paved"],
}


@tool
def population(town: Annotated[str, Field(max_length=4)]) -> str:
    """How many people live in a town."""
    return "1200"


@tool
def road(side: Literal["left", "right"], paved: bool = True) -> str:
    """Where a road leads."""
    return "to the sea"


def response_format_of(schema):
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}


UNIQUE = {"title": "Set", "type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
