/** Clients that others wrote, against a device in memory over a Unix socket. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { byteOffset, mebibytes } from '../../src/base/units.ts';
import { listenUnix, type Listener } from '../../src/nbd/node-socket.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import { realWorld } from '../../src/app/real-world.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { MemoryDevice, MemoryDirectory } from '../support/nbd-memory-device.ts';

const run = promisify(execFile);
const SIZE = 2 ** 26;

let directory: ReturnType<typeof temporaryDirectory>;
let server: NbdServer;
let listener: Listener;
let device: MemoryDevice;
let uri: string;

beforeAll(async () => {
  directory = temporaryDirectory();
  device = new MemoryDevice(SIZE);
  const moment = new MemoryDevice(SIZE, { readOnly: true });
  server = NbdServer.create({
    exports: new MemoryDirectory({ disk: device, moment }),
    timers: realWorld.timers,
    payloadBudget: mebibytes(72),
  });
  listener = await listenUnix(server, join(directory.path, 'nbd.sock'));
  uri = listener.uri('disk');
});

afterAll(async () => {
  await listener.close();
  await server.close(5000);
  expect(server.counters.violations).toBe(0);
  expect(server.budget.used).toBe(0);
  directory[Symbol.dispose]();
});

/** @param words - of the command line; lists are joined */
async function output(command: string, ...words: (string | readonly string[])[]): Promise<string> {
  const args = words.flat();
  const { stdout } = await run(command, args, { maxBuffer: 2 ** 26, timeout: 50_000 });
  return stdout;
}

describeWith(['nbdinfo'], 'nbdinfo', () => {
  it('sees what the export is and can', async () => {
    const { exports }: { exports: unknown[] } = JSON.parse(await output('nbdinfo', '--json', uri));
    expect(exports[0]).toMatchObject({
      'export-name': 'disk',
      'export-size': SIZE,
      description: 'a device in memory',
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      is_read_only: false,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 2 ** 25,
    });
    await expect(output('nbdinfo', listener.uri('nothing'))).rejects.toThrow('No such file');
    await output('nbdinfo', '--is', 'read-only', listener.uri('moment'));
  });

  it('lists the exports, and maps the allocation', async () => {
    const list = await output('nbdinfo', '--list', '--json', listener.uri());
    expect(list).toContain('"export-name": "moment"');
    expect(await output('nbdinfo', '--map', listener.uri('moment'))).toMatch(/hole,zero/);
  });
});

describeWith(['nbdcopy'], 'nbdcopy', () => {
  it('copies in and out, over several connections', async () => {
    const [source, back] = ['source', 'back'].map((name) => join(directory.path, name));
    const bytes = Buffer.concat([randomBytes(2 ** 22), Buffer.alloc(2 ** 22), randomBytes(12345)]);
    writeFileSync(source ?? '', bytes);
    await output('nbdcopy', '--flush', source ?? '', uri);
    expect(device.bytes.subarray(0, bytes.length).equals(bytes)).toBe(true);
    await output('nbdcopy', uri, back ?? '');
    expect(readFileSync(back ?? '').equals(device.bytes)).toBe(true);
  });
});

describeWith(['qemu-img'], 'qemu-img', () => {
  it('knows the size, and converts and compares', async () => {
    const info: unknown = JSON.parse(await output('qemu-img', 'info', '--output=json', uri));
    expect(info).toMatchObject({ 'virtual-size': SIZE });
    const file = join(directory.path, 'image.raw');
    await device.write(byteOffset(2 ** 24), randomBytes(2 ** 20), { fua: false });
    await output('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', uri, file);
    expect(readFileSync(file).equals(device.bytes)).toBe(true);
    await output('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', file, uri);
    const same = await output('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', file, uri);
    expect(same).toContain('identical');
  });
});

describeWith(['qemu-io'], 'qemu-io', () => {
  it('reads, writes, zeroes and discards, at any offset', async () => {
    const said = await output(
      'qemu-io',
      ['-f', 'raw', '-c', 'write -P 0x5a 513 70001', '-c', 'read -P 0x5a 513 70001'],
      ['-c', 'write -z 4096 8192', '-c', 'read -P 0 4096 8192', '-c', 'write -z -u 0 1M'],
      ['-c', 'discard 0 1M', '-c', 'flush', '-c', 'read -P 0 0 1M', '-c', 'write -f 0 512'],
      uri,
    );
    expect(said).not.toMatch(/fail|error|verification/i);
  });
});

describeWith(['fio'], 'fio', () => {
  it.each(['512', '4k', '64k', '1m'])('verifies blocks of %s over four connections', async (bs) => {
    await output(
      'fio',
      ['--name=verify', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', `--bs=${bs}`],
      ['--iodepth=16', '--numjobs=4', '--size=8m', '--offset_increment=8m', '--io_size=4m'],
      ['--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--thread', '--randseed=7'],
    );
  });
});

describeWith(['python3-nbd'], 'libnbd', () => {
  it('reads structured and simple, with and without strict checks of its own', async () => {
    const script = `
import nbd, sys
uri = sys.argv[1]
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(uri)
h.set_strict_mode(0)
h.pwrite(b"varve" * 1000, 77, nbd.CMD_FLAG_FUA)
assert h.pread(5000, 77) == b"varve" * 1000
assert h.pread(0, 0) == b""
chunks = []
h.pread_structured(8192, ${SIZE} - 8192, lambda data, offset, status, err: chunks.append((offset, status)))
assert chunks == [(${SIZE} - 8192, nbd.READ_HOLE)], chunks
found = []
h.block_status(65536, 0, lambda name, offset, entries, err: found.append((name, sum(entries[::2]))))
assert found == [("base:allocation", 65536)], found
def fails(errno, call):
    try: call()
    except nbd.Error as e: assert e.errnum == errno, (errno, e.errnum, str(e))
    else: raise AssertionError("it must fail")
fails(22, lambda: h.pread(10, ${SIZE} - 5))
fails(28, lambda: h.pwrite(b"0123456789", ${SIZE} - 5))
fails(28, lambda: h.zero(10, ${SIZE} - 5))
fails(22, lambda: h.trim(10, ${SIZE} - 5))
fails(22, lambda: h.pread(1, 2**63 - 1))
fails(22, lambda: h.pread(1, 2**53))
fails(95, lambda: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE))
h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO)
h.cache(4096, 0); h.flush(); h.trim(4096, 0, nbd.CMD_FLAG_FUA)
h.shutdown()
s = nbd.NBD(); s.set_request_structured_replies(False); s.connect_uri(uri)
assert s.pread(5, 5072) == b"varve", s.pread(5, 5072)
s.set_strict_mode(0)
fails(22, lambda: s.pread(10, ${SIZE} - 5))
s.shutdown()
o = nbd.NBD(); o.set_opt_mode(True); o.connect_uri(uri)
names = []
o.opt_list(lambda name, description: names.append(name))
assert names == ["disk", "moment"], names
o.set_export_name("moment"); o.opt_info()
assert o.is_read_only()
o.set_export_name("none"); fails(2, lambda: o.opt_go())
o.opt_abort()
print("done")
`;
    expect(await output('/usr/bin/python3', '-c', script, uri)).toBe('done\n');
  });
});
