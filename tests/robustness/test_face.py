from __future__ import annotations

import wsol.robustness as room
from wsol._names import resolve


def test_every_name_of_the_face_resolves():
    assert all(callable(getattr(room, name)) for name in room.__all__ if name != "ORDERS")
    assert set(room.ORDERS) == {"cascading", "independent"}
    for name in room.ORDERS:
        assert resolve("order", name, room.ORDERS, "wsol.robustness") is getattr(room, name)
