"""What every hand-written section shares."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

_SWITCH = {"yes": True, "no": False, "on": True, "off": False}


def _switch(value: Any) -> Any:
    return _SWITCH.get(value, value) if isinstance(value, str) else value


Flag = Annotated[bool, BeforeValidator(_switch)]
"""true/false; the words yes, no, on and off are taken for them where a field needs one."""


class Section(BaseModel):
    """What all sections share: unknown fields are errors, nothing changes after reading, types are not converted."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
