/** Streams as files: the one that was there stays until the new one is whole, whatever happens. */
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NodeFiles } from '../../src/app/node-files.ts';
import { VarveError } from '../../src/base/errors.ts';
import { writeStreamFile } from '../../src/control/stream-file.ts';
import { FileDevice } from '../../src/device/file-device.ts';
import { isZero } from '../../src/device/zeros.ts';
import { SEND_MAGIC } from '../../src/format/send-layouts.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { temporaryDirectory } from '../support/files.ts';

const PIECE = 8192;
const PIECES = 5;

function streamOf(fill: number): readonly Uint8Array[] {
  const first = new Uint8Array(PIECE).fill(fill);
  first.set(Buffer.from(SEND_MAGIC));
  return [first, ...Array.from({ length: PIECES - 1 }, () => new Uint8Array(PIECE).fill(fill))];
}

type Ports = Parameters<typeof writeStreamFile>[0];

const portsOf = (files: SimFiles): Ports => ({ files, openDevice: files.openDevice });
const REAL: Ports = {
  files: new NodeFiles(),
  openDevice: (path, options) => FileDevice.open(path, options),
};

async function send(ports: Ports, file: string, fill: number, replaces = true): Promise<void> {
  await writeStreamFile(ports, { file, replaces }, async (write) => {
    for (const bytes of streamOf(fill)) await write(bytes);
  });
}

// `varve send --output backup --force` emptied the backup first, so that a full disk, Ctrl-C or a
// power cut while the next one was written left neither of them; or a part, under the final name.
test('the stream of before is there until the next one is whole, wherever the power goes', async () => {
  const FILE = '/out/backup';
  const machine = async (seed: number): Promise<{ power: PowerSupply; files: SimFiles }> => {
    const power = new PowerSupply(new SimWorld(seed));
    const files = SimFiles.create(power);
    await power.world.run(async () => {
      await files.createDirectory('/out');
      await send(portsOf(files), FILE, 1);
    });
    return { power, files };
  };
  /** A simulated file has its size from the beginning: what was never written would be no bytes. */
  const clearEmpty = async (files: SimFiles): Promise<void> => {
    if ((await files.kind(`${FILE}.part`)) === 'none') return;
    const start = Buffer.alloc(SEND_MAGIC.length);
    files.disk(`${FILE}.part`).platter.read(0, start);
    if (isZero(start)) await files.remove(`${FILE}.part`);
  };
  const fillOf = (files: SimFiles): number => {
    const bytes = Buffer.alloc(PIECE * PIECES);
    files.disk(FILE).platter.read(0, bytes);
    const expected = Buffer.concat(streamOf(bytes.at(-1) ?? 0));
    expect(bytes.equals(expected), 'a stream is whole').toBe(true);
    return bytes.at(-1) ?? 0;
  };
  const calm = await machine(1);
  const before = calm.power.operations;
  await calm.power.world.run(() => send(portsOf(calm.files), FILE, 2));
  const operations = calm.power.operations - before;
  const found = new Set<number>();
  for (let at = 1; at <= operations; at += 1) {
    const { power, files } = await machine(at);
    power.plan({ loss: at % 3 === 0 ? 'kill' : 'cut', afterOperations: at });
    await power.runLife(() => send(portsOf(files), FILE, 2));
    if (power.alive) power.cut();
    power.restore();
    const again = files.reopen();
    found.add(fillOf(again));
    await power.world.run(async () => {
      await clearEmpty(again);
      await send(portsOf(again), FILE, 3);
    });
    expect(fillOf(again), `cut at ${at}`).toBe(3);
    expect(await power.world.run(() => again.list('/out'))).toEqual(['backup']);
  }
  expect(found).toEqual(new Set([1, 2]));
});

test('only what the run has made is removed when it fails', async () => {
  using directory = temporaryDirectory();
  const file = join(directory.path, 'backup');
  const part = `${file}.part`;
  await send(REAL, file, 1);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const old = readFileSync(file);

  const ended = writeStreamFile(REAL, { file, replaces: true }, async (write) => {
    await write(new Uint8Array(PIECE).fill(2));
    // Two of them would write one part.
    await expect(send(REAL, file, 3)).rejects.toMatchObject({ code: 'FILE_IN_USE' });
    throw new VarveError('INTERRUPTED', 'sending');
  });
  await expect(ended).rejects.toMatchObject({ code: 'INTERRUPTED' });
  expect(readFileSync(file).equals(old)).toBe(true);
  expect(existsSync(part)).toBe(false);

  // What somebody else calls so is no part that a killed run left.
  writeFileSync(part, 'my notes');
  await expect(send(REAL, file, 2)).rejects.toMatchObject({ code: 'PART_FOREIGN' });
  expect(readFileSync(part, 'utf8')).toBe('my notes');
  writeFileSync(part, SEND_MAGIC.slice(0, 3));
  await send(REAL, file, 2);
  expect(readFileSync(file).at(-1)).toBe(2);
  expect(existsSync(part)).toBe(false);
});

test('a file that came to be while the stream was written is not replaced unasked', async () => {
  using directory = temporaryDirectory();
  const file = join(directory.path, 'backup');
  const ended = writeStreamFile(REAL, { file, replaces: false }, async (write) => {
    await write(new Uint8Array(PIECE));
    writeFileSync(file, 'another');
  });
  await expect(ended).rejects.toMatchObject({ code: 'FILE_EXISTS' });
  expect(readFileSync(file, 'utf8')).toBe('another');
  mkdirSync(join(directory.path, 'second.part'));
  const second = join(directory.path, 'second');
  await expect(send(REAL, second, 1, false)).rejects.toMatchObject({ code: 'FILE_BAD' });
});
