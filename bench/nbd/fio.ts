/** One workload on one NBD export, by fio's nbd engine, and what it measured. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Workload {
  readonly name: string;
  readonly pattern: 'randwrite' | 'randread' | 'write' | 'read';
  readonly blockBytes: number;
  readonly depth: number;
  /** A flush after this many writes; 0: none. */
  readonly fsync: number;
}

export interface Measured {
  readonly iops: number;
  readonly bytesPerSecond: number;
  /** Completion latency in microseconds. */
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
}

export interface FioOptions {
  readonly uri: string;
  readonly sizeBytes: number;
  readonly seconds: number;
}

interface FioSide {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly clat_ns: {
    readonly max: number;
    readonly percentile?: Readonly<Record<string, number>>;
  };
}

interface FioJson {
  readonly jobs: readonly { readonly read: FioSide; readonly write: FioSide }[];
}

export async function fio(workload: Workload, options: FioOptions): Promise<Measured> {
  const args = [
    '--name=bench',
    '--ioengine=nbd',
    `--uri=${options.uri}`,
    `--rw=${workload.pattern}`,
    `--bs=${workload.blockBytes}`,
    `--iodepth=${workload.depth}`,
    `--size=${options.sizeBytes}`,
    '--time_based=1',
    `--runtime=${options.seconds}`,
    '--randrepeat=1',
    '--norandommap=1',
    '--verify_state_save=0',
    '--output-format=json',
    ...(workload.fsync > 0 ? [`--fsync=${workload.fsync}`] : []),
  ];
  const { stdout } = await run('fio', args, { maxBuffer: 64 * 1024 * 1024 });
  const parsed: unknown = JSON.parse(stdout.slice(stdout.indexOf('{')));
  if (!isFio(parsed)) throw new Error('fio printed no job');
  const [job] = parsed.jobs;
  if (job === undefined) throw new Error('fio printed no job');
  const side = workload.pattern.endsWith('read') ? job.read : job.write;
  const at = (percent: string): number => (side.clat_ns.percentile?.[percent] ?? 0) / 1000;
  return {
    iops: side.iops,
    bytesPerSecond: side.bw_bytes,
    p50Us: at('50.000000'),
    p99Us: at('99.000000'),
    p999Us: at('99.900000'),
    maxUs: side.clat_ns.max / 1000,
  };
}

function isFio(value: unknown): value is FioJson {
  return (
    typeof value === 'object' && value !== null && 'jobs' in value && Array.isArray(value.jobs)
  );
}
