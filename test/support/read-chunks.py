"""One structured read by libnbd, as its chunks: JSON on standard output. Arguments: URI offset length
[simple]. With "simple" the client negotiates no structured replies.
"""

import errno
import json
import sys

import nbd

uri, offset, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
h = nbd.NBD()
if "simple" in sys.argv:
    h.set_request_structured_replies(False)
h.connect_uri(uri)
chunks = []
kinds = {nbd.READ_DATA: "data", nbd.READ_HOLE: "hole", nbd.READ_ERROR: "error"}


def chunk(data, at, status, error):
    kind = kinds[status]
    chunks.append({"kind": kind, "offset": at, "length": 0 if kind == "error" else len(data),
                   "first": None if kind == "error" or len(data) == 0 else data[0]})
    return 0


result = "good"
try:
    if "simple" in sys.argv:
        h.pread(length, offset)
    else:
        h.pread_structured(length, offset, chunk)
except nbd.Error as problem:
    result = errno.errorcode.get(problem.errnum, str(problem.errnum))
print(json.dumps({"result": result, "chunks": chunks}))
h.shutdown()
