"""Hosts: machines runs take place on. One protocol (base.py), one module per kind of machine."""

from __future__ import annotations

from golfctl.domain.host import HostSpec
from golfctl.errors import InputError
from golfctl.hosts.base import Host

KINDS = ("local", "ssh")


def open_host(spec: HostSpec) -> Host:
    """The host a specification describes; nothing is contacted yet. Raises InputError on an unknown kind."""
    if spec.kind == "local":
        from golfctl.hosts.local import LocalHost

        return LocalHost(spec)
    if spec.kind == "ssh":
        from golfctl.hosts.ssh import SshHost

        return SshHost(spec)
    raise InputError(f"host {spec.alias}: kind {spec.kind!r} is unknown; allowed are {', '.join(KINDS)}")
