/**
 * A root image with a real file system, many clones of it, and some of them mounted and written at
 * once: each is right after a remount, also behind a restarted server, and so is the root.
 */
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nodeControlDoor } from '../../src/control/node-control-door.ts';
import { RemoteOperator } from '../../src/control/remote-operator.ts';
import { temporaryDirectory } from './files.ts';
import { generateTree, manifestOf } from './generated-tree.ts';
import { AttachedDisk, Mount } from './mounts.ts';
import { run, varve } from './run.ts';
import { Server } from './server.ts';

export interface FleetOptions {
  readonly clones: number;
  /** Of them, mounted at the same time. */
  readonly mounted: number;
  /** Of the root image, as the command line has it. */
  readonly size: string;
  readonly files: number;
}

export interface FleetReport {
  readonly clones: number;
  /** Mounted, written, unmounted, mounted again and compared; then again behind another server. */
  readonly compared: number;
  readonly cloneMs: { readonly median: number; readonly max: number };
  /** On disk, of a clone that has written nothing. */
  readonly cloneBytes: number;
  readonly restartMs: number;
  /** Of the server with all clones open, before anybody used one. */
  readonly rssBytes: number;
}

type Manifest = ReadonlyMap<string, string>;

const READY_MS = 600_000;

async function withMount<T>(
  server: Server,
  name: string,
  work: (path: string) => T,
  access: 'read' | 'write' = 'write',
): Promise<T> {
  await using disk = await AttachedDisk.attach(server.uri(name), access);
  const options = access === 'read' ? 'ro,noload' : 'noatime';
  await using mount = await Mount.mount(disk.device, { type: 'ext4', options });
  return work(mount.path);
}

function bytesOn(path: string): number {
  let bytes = 0;
  for (const name of readdirSync(path)) bytes += statSync(join(path, name)).blocks * 512;
  return bytes;
}

function rssOf(pid: number): number {
  const found = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
  return Number(found?.[1] ?? 0) * 1024;
}

function isSame(one: Manifest, other: Manifest): boolean {
  return one.size === other.size && [...one].every(([path, sum]) => other.get(path) === sum);
}

/** A mounted disk that nobody else writes meanwhile; both stay until it is disposed of. */
async function mounted(server: Server, name: string): Promise<AsyncDisposable & { path: string }> {
  const disk = await AttachedDisk.attach(server.uri(name), 'write');
  try {
    const mount = await Mount.mount(disk.device, { type: 'ext4', options: 'noatime' });
    return {
      path: mount.path,
      [Symbol.asyncDispose]: async () => {
        await mount[Symbol.asyncDispose]();
        await disk[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await disk[Symbol.asyncDispose]();
    throw error;
  }
}

/** What one user of a clone does to it: something new, something else, something gone. */
function change(root: string, i: number): Manifest {
  generateTree(join(root, 'own'), { seed: 1000 + i, files: 60 });
  writeFileSync(join(root, 'tree', `file-of-${i}`), `clone ${i}`);
  rmSync(join(root, 'tree', `folder-${i % 7}`), { recursive: true });
  return manifestOf(root);
}

async function makeRoot(server: Server, files: number): Promise<Manifest> {
  {
    await using disk = await AttachedDisk.attach(server.uri('root'), 'write');
    await run('mkfs.ext4', ['-q', '-F', disk.device]);
  }
  return await withMount(server, 'root', (path) => {
    generateTree(join(path, 'tree'), { seed: 1, files });
    return manifestOf(path);
  });
}

async function makeClones(server: Server, count: number): Promise<readonly number[]> {
  const channel = await nodeControlDoor.connect(join(server.directory, 'control.sock'));
  if (channel === undefined) throw new Error('no server answers');
  const refuse = (): never => {
    throw new Error('nothing is opened here');
  };
  const operator = new RemoteOperator(channel, refuse);
  const times: number[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const startMs = performance.now();
      await operator.clone(`clone-${i}`, { of: 'root@golden' }, () => undefined);
      times.push(performance.now() - startMs);
    }
  } finally {
    await operator.close();
  }
  return times.sort((one, other) => one - other);
}

/** @returns what each of the first clones holds at the end */
async function writeAtOnce(server: Server, count: number): Promise<readonly Manifest[]> {
  const mounts: (AsyncDisposable & { path: string })[] = [];
  try {
    for (let i = 0; i < count; i++) mounts.push(await mounted(server, `clone-${i}`));
    const done: Manifest[] = [];
    mounts.forEach(({ path }, i) => done.push(change(path, i)));
    return done;
  } finally {
    await Promise.all(mounts.map((mount) => mount[Symbol.asyncDispose]()));
  }
}

async function compare(server: Server, expected: readonly Manifest[]): Promise<number> {
  let compared = 0;
  for (const [i, manifest] of expected.entries()) {
    const got = await withMount(server, `clone-${i}`, manifestOf);
    if (!isSame(got, manifest)) throw new Error(`clone-${i} is not what was written to it`);
    compared += 1;
  }
  return compared;
}

export async function cloneFleet(options: FleetOptions): Promise<FleetReport> {
  using directory = temporaryDirectory();
  const data = join(directory.path, 'data');
  await varve(data, ['create', 'root', '--size', options.size, '--log-size', '256M']);
  let restartMs = 0;
  let golden: Manifest;
  let expected: readonly Manifest[];
  let compared: number;
  let times: readonly number[];
  let cloneBytes: number;
  {
    await using server = await Server.start(data);
    golden = await makeRoot(server, options.files);
    await varve(data, ['snapshot', 'create', 'root', 'golden']);
    times = await makeClones(server, options.clones);
    cloneBytes = bytesOn(join(data, `clone-${options.clones - 1}`));
    expected = await writeAtOnce(server, options.mounted);
    compared = await compare(server, expected);
    await server.stop();
  }
  const startMs = performance.now();
  await using server = await Server.start(data, { readyMs: READY_MS });
  restartMs = performance.now() - startMs;
  const rssBytes = rssOf(server.pid);
  compared += await compare(server, expected);
  for (const name of ['root@golden', `clone-${options.clones - 1}`]) {
    const got = await withMount(server, name, manifestOf, 'read');
    if (!isSame(got, golden)) throw new Error(`${name} is not what the root image was`);
  }
  const [median = 0, max = 0] = [times[Math.floor(times.length / 2)], times.at(-1)];
  return {
    clones: times.length,
    compared,
    cloneMs: { median, max },
    cloneBytes,
    restartMs,
    rssBytes,
  };
}
