"""NBD requests for the tests, made by libnbd: one JSON line (and its payload) a request on standard
input, one JSON line (and its payload) an answer on standard output, in any order, many in flight.
"""

import errno
import json
import os
import select

import nbd

handles = {}
inbox = bytearray()


def put(data):
    """All of it, whatever interrupts: a process that was stopped and goes on writes in parts."""
    rest = memoryview(data)
    while len(rest) > 0:
        try:
            rest = rest[os.write(1, rest):]
        except BlockingIOError:
            select.select([], [1], [])


def say(message, payload=b""):
    message["bytes"] = len(payload)
    put(json.dumps(message).encode() + b"\n")
    put(payload)


def fail(number, code, text=""):
    say({"id": number, "error": errno.errorcode.get(code, str(code)), "text": text})


def opened(request):
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_full_info(True)
    for context in request.get("contexts", []):
        h.add_meta_context(context)
    h.connect_uri(request["uri"])
    handles[request["connection"]] = h
    flags = ("is_read_only can_multi_conn can_flush can_fua can_trim can_zero can_fast_zero "
             "can_df can_cache get_structured_replies_negotiated")
    about = {name: bool(getattr(h, name)()) for name in flags.split()}
    about["size"] = h.get_size()
    about["canonicalName"] = h.get_canonical_export_name()
    about["description"] = h.get_export_description()
    about["contexts"] = [c for c in request.get("contexts", []) if h.can_meta_context(c)]
    return about


def listed(request):
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_uri(request["uri"])
    names = []
    h.opt_list(lambda name, text: names.append([name, text]) or 0)
    h.opt_abort()
    return names


def submit(request, payload):
    number, op = request["id"], request["op"]
    h = handles[request["connection"]]
    offset, length = request.get("offset", 0), request.get("length", 0)
    fua = nbd.CMD_FLAG_FUA if request.get("fua") else 0
    buffer, extents = None, []

    def completed(error):
        if error.value != 0:
            fail(number, error.value)
        elif op == "read":
            say({"id": number}, buffer.to_bytearray())
        else:
            say({"id": number, "extents": extents})
        return 1

    def extent(context, at, entries, error):
        extents.append({"context": context, "offset": at, "entries": list(entries)})
        return 0

    if op == "write":
        data = bytearray.fromhex(request["fill"]) * (length // 8) if "fill" in request else payload
        buffer = nbd.Buffer.from_bytearray(data)
        h.aio_pwrite(buffer, offset, completed, fua)
    elif op == "read":
        buffer = nbd.Buffer(length)
        h.aio_pread(buffer, offset, completed, nbd.CMD_FLAG_DF if request.get("df") else 0)
    elif op == "flush":
        h.aio_flush(completed)
    elif op == "trim":
        h.aio_trim(length, offset, completed, fua)
    elif op == "zero":
        hole = nbd.CMD_FLAG_NO_HOLE if request.get("noHole") else 0
        fast = nbd.CMD_FLAG_FAST_ZERO if request.get("fast") else 0
        h.aio_zero(length, offset, completed, fua | hole | fast)
    elif op == "cache":
        h.aio_cache(length, offset, completed)
    elif op == "status":
        h.aio_block_status(length, offset, extent, completed)
    else:
        raise ValueError(op)


def serve(request, payload):
    number, op = request["id"], request["op"]
    try:
        if op == "open":
            say({"id": number, "about": opened(request)})
        elif op == "list":
            say({"id": number, "exports": listed(request)})
        elif op == "close":
            h = handles.pop(request["connection"], None)
            if h is not None and not (h.aio_is_dead() or h.aio_is_closed()):
                h.shutdown()
            say({"id": number})
        elif request["connection"] not in handles:
            fail(number, errno.ENOTCONN, "closed")
        else:
            submit(request, payload)
    except nbd.Error as error:
        fail(number, error.errnum or errno.EIO, str(error))


def requests():
    """Takes whole requests out of the inbox."""
    while True:
        end = inbox.find(b"\n")
        if end < 0:
            return
        request = json.loads(inbox[:end])
        size = request.get("bytes", 0)
        if len(inbox) < end + 1 + size:
            return
        payload = bytearray(inbox[end + 1 : end + 1 + size])
        del inbox[: end + 1 + size]
        serve(request, payload)


def is_live(h):
    return not (h.aio_is_dead() or h.aio_is_closed())


def turn():
    poll = select.poll()
    poll.register(0, select.POLLIN)
    owners = {}
    for h in handles.values():
        if not is_live(h):
            continue
        direction = h.aio_get_direction()
        events = select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0
        events |= select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0
        owners[h.aio_get_fd()] = h
        poll.register(h.aio_get_fd(), events)
    for fd, events in poll.poll():
        if fd == 0:
            chunk = os.read(0, 1 << 20)
            if not chunk:
                return False
            inbox.extend(chunk)
            continue
        h = owners[fd]
        try:
            if is_live(h) and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                h.aio_notify_read()
            if is_live(h) and events & select.POLLOUT:
                if h.aio_get_direction() & nbd.AIO_DIRECTION_WRITE:
                    h.aio_notify_write()
        except nbd.Error:
            pass  # The connection is dead; what was in flight has been answered with an error.
    requests()
    return True


while turn():
    pass
