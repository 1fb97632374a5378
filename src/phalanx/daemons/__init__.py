"""Which process runs what: the only wiring between rooms that must not know each other.

Its parts are imported by name (`phalanx.daemons.foreground`), so that the agent's process loads no
admission, pages or telemetry.
"""
