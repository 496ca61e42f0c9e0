/**
 * What a power cut could leave, found by its consequences: programs with an order of writes that
 * nothing enforces are found out, with the writes that explain it; mended, they pass.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { crc32 } from '@node-rs/crc32';
import { expect, it } from 'vitest';
import { openNbdExport } from '../../src/control/nbd-export.ts';
import { byteOffset } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { connectUnix } from '../../src/nbd/node-socket.ts';
import { describeWith } from '../support/clients.ts';
import { explored } from '../support/exploring.ts';
import { temporaryDirectory } from '../support/files.ts';
import { AttachedDisk, Mount } from '../support/mounts.ts';
import { run, varve } from '../support/run.ts';
import { Server } from '../support/server.ts';

/**
 * A store of two slots on the raw disk: data goes into the free slot, then a record that names it
 * with its checksum replaces the old record. Between the two there has to be a flush.
 */
async function store(
  device: BlockDevice,
  mode: 'bad' | 'mended',
  [first, last]: readonly [number, number],
): Promise<void> {
  for (let number = first; number <= last; number++) {
    const data = Buffer.alloc(8192, number);
    const slot = 1_048_576 + (number % 2) * 65_536;
    await device.write(byteOffset(slot), data, { fua: false });
    if (mode === 'mended') await device.flush();
    const record = Buffer.alloc(4096);
    record.write(`${slot} ${crc32(data)} `);
    await device.write(byteOffset(0), record, { fua: false });
    // Something else, which does not matter.
    const other = Buffer.alloc(4096, `${mode} ${number}`);
    await device.write(byteOffset(4_194_304 + number * 4096), other, { fua: false });
    await device.flush();
  }
}
const STORE_CHECK = `
import os, sys, zlib
disk = os.open(os.environ['VARVE_DEVICE'], os.O_RDWR)
slot, crc = map(int, os.pread(disk, 4096, 0).split()[:2])
if zlib.crc32(os.pread(disk, 8192, slot)) != crc: sys.exit('the record names data that is not there')
# A repair that must not reach the disk, nor another state.
os.pwrite(disk, b'x' * 4096, 0)
`;

const SQLITE = `
import sqlite3, sys
path, mode, what = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None)
db.execute('pragma journal_mode=delete')
db.execute('pragma synchronous=' + mode)
if what == 'make':
    db.execute('create table t (id integer primary key, body text)')
    db.execute('begin')
    for i in range(100): db.execute('insert into t (body) values (?)', ('x' * 300,))
    db.execute('create index i on t (body)')
    db.execute('commit')
for n in range(2):
    db.execute('begin')
    db.execute('update t set body = ? where id % 3 = ?', ('y%d' % n * 300, n))
    db.execute('insert into t (body) select body || id from t limit 60')
    db.execute('commit')
db.close()
`;
/** Without mounting, so without root: the journal is replayed, and the files are taken out. */
const SQLITE_CHECK = `
e2fsck -fp "$VARVE_DEVICE" > "$VARVE_SCRATCH/fsck" 2>&1
[ $? -le 1 ] || { cat "$VARVE_SCRATCH/fsck"; exit 20; }
mkdir "$VARVE_SCRATCH/files"
debugfs -R "rdump / $VARVE_SCRATCH/files" "$VARVE_DEVICE" > /dev/null 2>&1
/usr/bin/python3 - "$VARVE_SCRATCH/files/app.db" <<'END'
import sqlite3, sys
answer = sqlite3.connect(sys.argv[1]).execute('pragma integrity_check').fetchall()
sys.exit(0 if answer == [('ok',)] else str(answer)[:200])
END
`;

async function makeDisk(data: string): Promise<void> {
  await varve(data, ['create', 'disk', '--size', '32M', '--log-size', '96M']);
}

async function head(server: Server): Promise<string> {
  return `gen=${(await server.info()).head.generation}`;
}

/** The disk as NBD clients write it: in their order, nothing between. */
async function onExport<T>(server: Server, work: (device: BlockDevice) => Promise<T>): Promise<T> {
  const { device } = await openNbdExport(() => connectUnix(server.socket), 'disk');
  try {
    return await work(device);
  } finally {
    await device.close();
  }
}

/** The disk as a block device, while `work` runs. */
async function onDisk<T>(server: Server, work: (device: string) => Promise<T>): Promise<T> {
  await using disk = await AttachedDisk.attach(server.uri(), 'write');
  return await work(disk.device);
}

const PYTHON = '/usr/bin/python3';

describeWith(['nbdfuse', 'fusermount3'], 'a store whose order nothing enforces', () => {
  it('is found, explained by two writes, and passes when it is mended', async () => {
    using folder = temporaryDirectory();
    const data = join(folder.path, 'data');
    const check = join(folder.path, 'check.py');
    writeFileSync(check, STORE_CHECK);
    await makeDisk(data);
    const words = { data, check: `${PYTHON} ${check}` };
    let [begin, middle] = ['', ''];
    {
      await using server = await Server.start(data);
      await onExport(server, async (device) => {
        await store(device, 'mended', [1, 2]);
        begin = await head(server);
        await store(device, 'bad', [3, 5]);
        middle = await head(server);
        await store(device, 'mended', [6, 8]);
        const end = await head(server);
        const two = ['--jobs', '2'];
        // The client stays, and writes beyond what is looked at.
        const bad = explored(folder.path, { ...words, more: two, from: begin, to: middle });
        await store(device, 'mended', [9, 28]);
        const { code, report, left } = await bad;
        expect(code).toBe(3);
        expect(left).toEqual([]);
        expect(report).toMatchObject({ isComplete: true, flushes: 2, unexplained: 0 });
        expect(report.findings).toHaveLength(3);
        for (const { kind, missing, present, verdict } of report.findings) {
          expect(kind).toBe('missing');
          expect(missing).toHaveLength(1);
          expect(missing[0]?.ranges[0]?.offset).toBeGreaterThanOrEqual(1_048_576);
          expect(missing[0]?.ranges[0]?.length).toBe(8192);
          expect(present.map(({ ranges }) => ranges[0]?.offset)).toEqual([0]);
          expect(verdict.output).toContain('names data that is not there');
        }
        const mended = await explored(folder.path, { ...words, more: two, from: middle, to: end });
        expect(mended.report.findings).toEqual([]);
        expect(mended).toMatchObject({ code: 0, left: [], report: { isComplete: true } });
        expect(mended.report.checked).toBeGreaterThan(10);
        console.info(`${mended.report.statesPerSecond.toFixed(1)} states a second`);
      });
      await server.stop();
    }
    // The same without a server; and torn, there is more that can go wrong.
    const more = ['--jobs', '2', '--torn', '--max-states', '40'];
    const again = await explored(folder.path, { ...words, from: begin, to: middle, more });
    expect(again).toMatchObject({ code: 3, left: [] });
    expect(again.report.findings.map(({ kind }) => kind)).toContain('missing');
  });

  it('is told as far as it was found when a person ends it, and nothing stays behind', async () => {
    using folder = temporaryDirectory();
    const data = join(folder.path, 'data');
    const [check, begun] = [join(folder.path, 'check.py'), join(folder.path, 'begun')];
    writeFileSync(check, STORE_CHECK);
    await makeDisk(data);
    await using server = await Server.start(data);
    const [from, to] = await onExport(server, async (device) => {
      await store(device, 'mended', [1, 1]);
      const first = await head(server);
      await store(device, 'bad', [2, 7]);
      return [first, await head(server)];
    });
    // From the twelfth on they would not end, and neither would what they started.
    const slow =
      `echo $$ >> ${begun}; ${PYTHON} ${check} || exit 1; ` +
      `[ $(wc -l < ${begun}) -lt 12 ] || { sleep 1000 & sleep 1000; }`;
    const ended = await explored(folder.path, {
      data,
      from,
      to,
      check: slow,
      more: ['--jobs', '2'],
      interruptAt: { path: begun, lines: 12 },
    });
    expect(ended.left).toEqual([]);
    expect(ended.report.isInterrupted).toBe(true);
    expect(ended.report.checked).toBeGreaterThan(5);
    expect(ended.code).toBe(ended.report.failed > 0 ? 3 : 1);
    const groups = readFileSync(begun, 'utf8').trim().split('\n');
    const isThere = async (): Promise<boolean> =>
      (await run('ps', ['-eo', 'pgid='])).split('\n').some((id) => groups.includes(id.trim()));
    for (let waitedMs = 0; (await isThere()) && waitedMs < 5000; waitedMs += 50) await delay(50);
    expect(await isThere()).toBe(false);
  });

  it('is not looked for where the check fails from the beginning, or can not run', async () => {
    using folder = temporaryDirectory();
    const data = join(folder.path, 'data');
    await makeDisk(data);
    await using server = await Server.start(data);
    await onExport(server, (device) => store(device, 'mended', [1, 1]));
    const words = { data, from: 'gen=1', to: 'gen=3', more: ['--device', 'none'] };
    const fails = async (
      check: string,
      code: string,
      more: readonly string[] = [],
    ): Promise<void> => {
      const all = { ...words, check, more: [...words.more, ...more] };
      await expect(explored(folder.path, all)).rejects.toThrow(code);
    };
    await fails('echo no good; false', 'CHECK_BAD');
    await fails('no-such-program', 'CHECK_BAD');
    await fails('sleep 30 & sleep 30', 'does not end in time', ['--timeout', '1']);
    await fails('true', 'HISTORY_EMPTY', ['--to', 'gen=1']);
    await fails('true', 'MOMENT_OUTSIDE', ['--to', 'gen=4000']);
    await fails('true', 'USAGE', ['--seed', 'x']);
    const late = await explored(folder.path, {
      ...words,
      check: 'nbdinfo --size "$VARVE_URI" > /dev/null; [ -z "$VARVE_DEVICE" ]',
    });
    expect(late).toMatchObject({ code: 0, left: [] });
  });
});

const SQLITE_CLIENTS = ['nbdfuse', 'fusermount3', 'losetup', 'mount', 'mkfs.ext4'] as const;

describeWith(SQLITE_CLIENTS, 'SQLite on ext4', () => {
  it('is found out with synchronous=OFF, and holds with FULL', async () => {
    using folder = temporaryDirectory();
    const data = join(folder.path, 'data');
    const app = join(folder.path, 'app.py');
    writeFileSync(app, SQLITE);
    mkdirSync(join(folder.path, 'tmp'));
    await makeDisk(data);
    await using server = await Server.start(data);
    await onDisk(server, (device) => run('mkfs.ext4', ['-q', '-F', '-b', '4096', device]));
    const use = (mode: string, what: string): Promise<string> =>
      onDisk(server, async (device) => {
        await using mount = await Mount.mount(device, { type: 'ext4', options: 'noatime' });
        return await run(PYTHON, [app, join(mount.path, 'app.db'), mode, what]);
      });
    await use('FULL', 'make');
    const begin = await head(server);
    await use('FULL', 'run');
    const middle = await head(server);
    await use('OFF', 'run');
    const end = await head(server);
    const words = { data, check: SQLITE_CHECK, more: ['--jobs', '2', '--max-states', '30'] };
    const full = await explored(folder.path, { ...words, from: begin, to: middle });
    expect(full.report.findings).toEqual([]);
    expect(full).toMatchObject({ code: 0, left: [] });
    expect(full.report.checked).toBeGreaterThan(20);
    const off = await explored(folder.path, { ...words, from: middle, to: end });
    expect(off).toMatchObject({ code: 3, left: [] });
    for (const { missing, present } of off.report.findings) {
      expect(missing.length + present.length).toBeLessThanOrEqual(6);
    }
    console.info(
      `${full.report.statesPerSecond.toFixed(1)} states a second; ` +
        off.report.findings.map(({ kind, states }) => `${kind} in ${states}`).join(', '),
    );
  });
});
