"""Static group membership as Kafka means it: who has been replaced under its instance id hears that, and ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.group import HeartbeatRequest, HeartbeatRequest_v1, HeartbeatResponse_v1
from aiokafka.protocol.types import Schema, String

#: Kafka's FENCED_INSTANCE_ID; aiokafka has no name for it.
_FENCED_INSTANCE_ID: Final = 82


class _Response(HeartbeatResponse_v1):  # type: ignore[misc]  # aiokafka ships no types
    API_VERSION = 3


class _Struct(RequestStruct):  # type: ignore[misc]  # the same
    API_KEY = HeartbeatRequest.API_KEY
    API_VERSION = 3
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        *zip(HeartbeatRequest_v1.SCHEMA.names, HeartbeatRequest_v1.SCHEMA.fields, strict=True),
        ("group_instance_id", String("utf-8")),
    )


class _Heartbeat(Request[_Struct]):  # type: ignore[misc]  # the same
    """A heartbeat that names the instance."""

    API_KEY = HeartbeatRequest.API_KEY

    def __init__(self, stock: Any, instance_id: str) -> None:
        self._stock = stock
        self._instance_id = instance_id

    def build(self, request_struct_class: type[Any]) -> Any:
        return request_struct_class(
            self._stock._group, self._stock._generation_id, self._stock._member_id, self._instance_id  # noqa: SLF001 -- no API
        )  # fmt: skip


def tell_fenced(coordinator: Any, instance_id: str, on_fenced: Callable[[], None]) -> None:
    """
    Have a group coordinator's client tell that another process has taken its instance id; in the client's thread.

    aiokafka's heartbeats do not name the instance. Kafka then answers one that was replaced as it answers one that was
    silent for too long, and it joins again: two processes with one id would take the partitions from each other for
    ever.
    """
    send = coordinator._send_req  # noqa: SLF001 -- every request to the coordinator passes here

    async def send_named(request: Any) -> Any:
        response = await send(_Heartbeat(request, instance_id) if isinstance(request, HeartbeatRequest) else request)
        if getattr(response, "error_code", 0) == _FENCED_INSTANCE_ID:
            on_fenced()
        return response

    coordinator._send_req = send_named  # noqa: SLF001 -- the same
