"""Stands in for the network: notes each name and address that a process wants, and reaches none."""

import os
import socket


def _note(host):
    with open(os.environ["NETWORK_NOTES"], "a", encoding="utf-8") as file:
        file.write(f"{host}\n")
    raise socket.gaierror(socket.EAI_AGAIN, "no network in this test")


def _look_up(host, *args, **more):
    _note(host)


class _Socket(socket.socket):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _note(address[0])
        super().connect(address)


socket.getaddrinfo = _look_up
socket.socket = _Socket
