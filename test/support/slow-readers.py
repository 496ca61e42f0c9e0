"""NBD clients that ask for a lot and read one byte a second each: SOCKET HANDSHAKE REQUESTS COUNT,
with the bytes of handshake and requests in hexadecimal. Says `ended` when the server ends one of
them, and `ready` when all have asked.
"""

import select
import socket
import sys
import time

path, handshake, requests, count = sys.argv[1:]
live = []
for _ in range(int(count)):
    s = socket.socket(socket.AF_UNIX)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(path)
    s.sendall(bytes.fromhex(handshake) + bytes.fromhex(requests))
    live.append(s)
print("ready", flush=True)


def ends(s):
    """One byte; true when there is none and the server has gone. A Unix socket says so at once."""
    poll = select.poll()
    poll.register(s, 0)
    if poll.poll(0):
        return True
    s.setblocking(False)
    try:
        return s.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


while live:
    for s in [s for s in live if ends(s)]:
        live.remove(s)
        s.close()
        print("ended", flush=True)
    time.sleep(1)
