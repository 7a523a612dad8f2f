"""Refuse every connection that leaves this machine. Python reads this file at start when its folder is on PYTHONPATH.

An audit hook cannot be taken off again, and is asked before any connection is made, whichever library makes it.
Kernels and servers that a test starts inherit PYTHONPATH, and so the rule.
"""

import ipaddress
import sys

ASKED = {"socket.connect", "socket.sendto", "socket.sendmsg"}  # (socket, address)
RESOLVED = {"socket.getaddrinfo", "socket.gethostbyname"}  # (host, ...)


def is_here(host):
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost", "0.0.0.0", "::"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def refuse_the_network(event, arguments):
    if event in ASKED and isinstance(arguments[1], tuple):  # a path or None: a Unix socket, or already connected
        host = arguments[1][0]
    elif event in RESOLVED:
        host = arguments[0]
    else:
        return
    if not is_here(host):
        raise ConnectionRefusedError(f"{event} to {host!r}: tests run without a network, only this machine answers.")


sys.addaudithook(refuse_the_network)
