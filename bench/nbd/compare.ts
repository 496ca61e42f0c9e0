/**
 * Varve beside its peers: every workload on every server in turn, in interleaved rounds, medians
 * and ratios. Absolute figures drift on shared machines; ratios from one run are what counts.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { fio, type Measured, type Workload } from './fio.ts';
import { SERVERS, type Place } from './servers.ts';

const run = promisify(execFile);

export const WORKLOADS: readonly Workload[] = [
  {
    name: '4 KiB random write, qd 32',
    pattern: 'randwrite',
    blockBytes: 4096,
    depth: 32,
    fsync: 0,
  },
  { name: '4 KiB random read, qd 32', pattern: 'randread', blockBytes: 4096, depth: 32, fsync: 0 },
  { name: '4 KiB random write, qd 1', pattern: 'randwrite', blockBytes: 4096, depth: 1, fsync: 0 },
  {
    name: '4 KiB random write, qd 32, fsync every 32',
    pattern: 'randwrite',
    blockBytes: 4096,
    depth: 32,
    fsync: 32,
  },
  {
    name: '4 KiB random write, qd 1, fsync each',
    pattern: 'randwrite',
    blockBytes: 4096,
    depth: 1,
    fsync: 1,
  },
  {
    name: '1 MiB sequential write, qd 4',
    pattern: 'write',
    blockBytes: 1 << 20,
    depth: 4,
    fsync: 0,
  },
  { name: '1 MiB sequential read, qd 4', pattern: 'read', blockBytes: 1 << 20, depth: 4, fsync: 0 },
];

export interface CompareOptions {
  readonly servers: readonly string[];
  readonly rounds: number;
  readonly seconds: number;
  readonly sizeBytes: number;
  readonly logBytes: number;
}

export interface Comparison {
  readonly machine: Readonly<Record<string, string>>;
  readonly options: CompareOptions;
  /** Workload, then server: one value a round. */
  readonly measured: Readonly<Record<string, Readonly<Record<string, readonly Measured[]>>>>;
  /** Most resident memory of a server over all rounds, in bytes. */
  readonly peakBytes: Readonly<Record<string, number>>;
}

export async function compare(options: CompareOptions): Promise<Comparison> {
  const measured: Record<string, Record<string, Measured[]>> = {};
  const peakBytes: Record<string, number> = {};
  const folder = await mkdtemp(join(tmpdir(), 'varve-bench-'));
  const place: Place = { folder, sizeBytes: options.sizeBytes, logBytes: options.logBytes };
  try {
    for (let round = 0; round < options.rounds; round++) {
      for (const name of options.servers) {
        const start = SERVERS[name];
        if (start === undefined) throw new Error(`no server is called ${name}`);
        const server = await start(place);
        try {
          await fill(server.uri, options.sizeBytes);
          for (const workload of WORKLOADS) {
            const result = await fio(workload, { ...options, uri: server.uri });
            ((measured[workload.name] ??= {})[name] ??= []).push(result);
            say(`round ${round + 1} ${name}: ${workload.name}: ${shown(workload, result)}`);
          }
          peakBytes[name] = Math.max(peakBytes[name] ?? 0, server.memory().peak);
        } finally {
          await server.stop();
        }
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return { machine: await machine(), options, measured, peakBytes };
}

/** The working set is written once before anything is measured, then left alone. */
async function fill(uri: string, sizeBytes: number): Promise<void> {
  const workload: Workload = {
    name: 'fill',
    pattern: 'write',
    blockBytes: 1 << 20,
    depth: 4,
    fsync: 0,
  };
  await fio(workload, { uri, sizeBytes, seconds: Math.max(1, Math.ceil(sizeBytes / 2e9)) });
  await run('sync');
  // Else the large folios of the fill make the peers' writes in place several times slower.
  await writeFile('/proc/sys/vm/drop_caches', '3').catch(() => {
    say('the page cache can not be dropped without root: peers that write in place look slower');
  });
}

function shown(workload: Workload, { iops, bytesPerSecond, p99Us }: Measured): string {
  const rate =
    workload.blockBytes >= 1 << 20
      ? `${(bytesPerSecond / 1e9).toFixed(2)} GB/s`
      : `${(iops / 1000).toFixed(1)} k/s`;
  return `${rate}, p99 ${p99Us.toFixed(0)} us`;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

/** A Markdown table: medians, and in brackets the ratio of Varve to that peer. */
export function table({ options, measured }: Comparison): string {
  const lines = [
    `| workload | ${options.servers.join(' | ')} |`,
    `|---|${options.servers.map(() => '---').join('|')}|`,
  ];
  for (const workload of WORKLOADS) {
    const ours = median((measured[workload.name]?.['varve'] ?? []).map((one) => one.iops));
    const cells = options.servers.map((name) => {
      const results = measured[workload.name]?.[name] ?? [];
      const iops = median(results.map((one) => one.iops));
      const rate =
        workload.blockBytes >= 1 << 20
          ? `${(median(results.map((one) => one.bytesPerSecond)) / 1e9).toFixed(2)} GB/s`
          : `${(iops / 1000).toFixed(1)} k`;
      return name === 'varve' || iops === 0 ? rate : `${rate} (${(ours / iops).toFixed(2)} x)`;
    });
    lines.push(`| ${workload.name} | ${cells.join(' | ')} |`);
  }
  return lines.join('\n');
}

async function machine(): Promise<Record<string, string>> {
  const version = async (program: string): Promise<string> => {
    try {
      const { stdout } = await run(program, ['--version']);
      return stdout.split('\n')[0]?.trim() ?? '';
    } catch {
      return 'not installed';
    }
  };
  return {
    cpu: `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    kernel: release(),
    node: process.version,
    fio: await version('fio'),
    nbdkit: await version('nbdkit'),
    'qemu-nbd': await version('qemu-nbd'),
    date: new Date().toISOString(),
  };
}

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
