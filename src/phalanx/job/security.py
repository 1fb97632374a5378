"""What a job may demand for its protection, and what of it is carried out: said alike by every room.

No room enforces any of it yet. A demand by name is refused (`admission`); `auto` is allowed, and plan
and report repeat the sentences of `not_enforced`.
"""

from __future__ import annotations

from phalanx.job.spec import SecuritySpec

# What `auto` amounts to until a room enforces more.
_INSTEAD = {
    "isolation": "workers run as you, with your files and your rights",
    "network": "nothing but loopback addresses separates workers from other programs of this machine",
    "integrity": "checkpoints carry checksums, but nothing is signed",
}


def not_enforced(security: SecuritySpec) -> tuple[str, ...]:
    """One sentence for each demand left to `auto`: that it is not enforced, and what is there instead."""
    return tuple(
        f"{name}: not enforced; {instead}" for name, instead in _INSTEAD.items() if getattr(security, name) == "auto"
    )


def unenforceable(security: SecuritySpec) -> dict[str, str]:
    """The demands by name that no room can meet: key of `security` to the value demanded."""
    demands = {name: str(getattr(security, name)) for name in _INSTEAD}
    return {name: demand for name, demand in demands.items() if demand not in ("auto", "none")}
