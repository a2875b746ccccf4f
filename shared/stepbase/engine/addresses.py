"""Which addresses the engine may be sent to: what a function asks for must not reach the private network.

A name is looked up once, and the connection goes to the address that was checked: a name whose answer
changes in between gains nothing.
"""

import asyncio
import ipaddress
import socket

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class PrivateAddressError(Exception):
    """The request would leave the public internet."""


def is_public(text: str) -> bool:
    """Say whether an address is on the public internet, also if it only carries another one."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        else:
            address = address.ipv4_mapped or address.sixtofour or address
    return address.is_global and not address.is_multicast


async def public(host: str, port: int) -> list[str]:
    """Return the public addresses of a host, in the order they should be tried.

    Raises:
        PrivateAddressError: If it has others only.
        OSError: If it has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    all_of_it = dict.fromkeys(str(info[4][0]) for info in found)
    addresses = [address for address in all_of_it if is_public(address)]
    if not addresses:
        raise PrivateAddressError(
            f"{host} is not on the public internet, and this engine makes no requests to other "
            "addresses (--private-requests allows them)"
        )
    return addresses
