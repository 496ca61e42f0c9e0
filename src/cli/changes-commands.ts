/** diff, blame, find: what changed, and when. */
import type { Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  generation as generationOf,
  type ByteOffset,
  type Generation,
} from '../base/units.ts';
import { DiffTotals, diffRanges } from '../control/diff.ts';
import { parseExportName } from '../control/export-directory.ts';
import type { Past } from '../control/past.ts';
import { sizeText } from '../control/size-text.ts';
import { timeText } from '../volume/moment.ts';
import type { VersionInfo } from '../volume/past-report.ts';
import type { PointInTime } from '../volume/report.ts';
import { contextOf, shared, type Context, type Setup } from './context.ts';
import { addFind } from './find-command.ts';
import { ListOutput } from './list-output.ts';
import { parseOffset, parseWhole } from './numbers.ts';

const RANGE_COLUMNS = [
  { head: 'OFFSET', width: 16, align: 'right' },
  { head: 'LENGTH', width: 14, align: 'right' },
  { head: 'BECAME', width: 6 },
] as const;

const VERSION_COLUMNS = [
  { head: 'GENERATION', width: 12, align: 'right' },
  { head: 'TIME', width: 27 },
  { head: 'WHAT', width: 5 },
  { head: 'REQUEST', width: 10, align: 'right' },
  { head: 'SEEN BY', width: 8 },
] as const;

const VERSIONS_DEFAULT = '20';
const VERSIONS_LIMIT_MAX = 1_000_000;

const DIFF_HELP = `
A block counts as changed when a request wrote, trimmed or zeroed it after the older of the two
moments, up to the newer one: also when it was written with the same bytes, and when it changed back.
BECAME says what the second name holds there. --content reads both moments where something changed,
and leaves out blocks that hold the same bytes. Ranges are of whole blocks of ${BLOCK_BYTES} bytes.
`;

interface DiffFlags {
  readonly content?: boolean;
  readonly summary?: boolean;
}

function pointText(name: string, { generation, wallUs }: PointInTime): string {
  return `${name}@gen=${generation}  ${timeText(wallUs)}`;
}

async function sayDiff(
  context: Context,
  past: Past,
  {
    name,
    moments,
    flags,
  }: { name: string; moments: readonly (string | undefined)[]; flags: DiffFlags },
): Promise<void> {
  const from = await past.point(moments[0]);
  const to = await past.point(moments[1]);
  const totals = new DiffTotals();
  const isSummary = flags.summary === true;
  const json = { name, from, to, content: flags.content === true };
  const lines = [`from  ${pointText(name, from)}`, `to    ${pointText(name, to)}`];
  const head = { json, lines: isSummary ? [] : [...lines, ''] };
  const output = new ListOutput('ranges', RANGE_COLUMNS, { isJson: context.isJson, head });
  const query = { from: from.generation, to: to.generation, content: flags.content === true };
  await context.withProgress(`comparing ${name}`, async (progress) => {
    for await (const range of diffRanges(past, query, { totals, progress })) {
      const { offset, length, became } = range;
      if (!isSummary) await output.row(range, [String(offset), String(length), became]);
    }
  });
  const { ranges, blocks, bytes, dataBytes, zeroBytes, sameBytes } = totals;
  const same = query.content ? `; ${sizeText(sameBytes)} rewritten with the same bytes` : '';
  const became = `${sizeText(dataBytes)} became data, ${sizeText(zeroBytes)} zeros${same}`;
  const told = `${ranges} ranges, ${blocks} blocks, ${bytes} bytes: ${became}`;
  const nothing = ranges === 0 ? lines : [];
  const summary = isSummary ? [...lines, told] : [...nothing, '', told];
  await output.end({ totals }, summary);
}

function addDiff(program: Command, setup: Setup): void {
  const command = program
    .command('diff <one> [other]')
    .description('name the ranges that changed between two moments of a disk, in either order')
    .option('--content', 'compare bytes: leave out what was rewritten with the same')
    .option('--summary', 'only the counts')
    .addHelpText('after', DIFF_HELP);
  shared(command, [
    'varve diff disk@-10m            from ten minutes ago to now',
    'varve diff disk@before-upgrade disk@gen=184467',
    'varve diff disk@-1h disk@-10m --content --json',
  ]).action(async (one: string, other: string | undefined, flags: DiffFlags) => {
    const from = parseExportName(one);
    const to = parseExportName(other ?? from.volume);
    if (from.volume !== to.volume) {
      const both = `got "${from.volume}" and "${to.volume}"`;
      throw new VarveError('USAGE', `two moments of one volume are compared; ${both}`);
    }
    const name = from.volume;
    const moments = [from.moment, to.moment];
    const context = await contextOf(command, setup);
    await context.withOperator((operator) =>
      operator.withPast(name, (past) => sayDiff(context, past, { name, moments, flags })),
    );
  });
}

function seenText(name: string, { seenBy }: VersionInfo): string {
  const { live, from, to, snapshots, snapshotsMore } = seenBy;
  const moments = from === to ? `${name}@gen=${from}` : `${name}@gen=${from} to gen=${to}`;
  const kept = snapshots.length === 0 ? [] : [`snapshots ${snapshots.join(', ')}`];
  const more = snapshotsMore === 0 ? [] : [`${snapshotsMore} more snapshots`];
  return [...(live ? ['now'] : []), moments, ...kept, ...more].join(', ');
}

function versionCells(name: string, version: VersionInfo): readonly string[] {
  const { generation, wallUs, kind, requestBytes } = version;
  return [
    generation === undefined ? '-' : String(generation),
    wallUs === undefined ? 'before the window' : timeText(wallUs),
    kind,
    requestBytes === undefined ? '-' : sizeText(requestBytes),
    seenText(name, version),
  ];
}

interface BlameQuery {
  readonly name: string;
  readonly moment: string | undefined;
  readonly offset: ByteOffset;
  readonly limit: number;
}

async function sayBlame(context: Context, past: Past, query: BlameQuery): Promise<void> {
  const { name, moment, offset, limit } = query;
  const window = await past.window();
  const block = Math.floor(offset / BLOCK_BYTES);
  const span = `bytes ${block * BLOCK_BYTES} to ${(block + 1) * BLOCK_BYTES - 1}`;
  const covered = `the window is gen=${window.horizon.generation} to gen=${window.head.generation}`;
  const head = {
    json: { name, offset, block, window },
    lines: [`block ${block} of ${name}, ${span}; ${covered}`, ''],
  };
  const output = new ListOutput('versions', VERSION_COLUMNS, { isJson: context.isJson, head });
  const newest = moment === undefined ? window.head : await past.point(moment);
  let next: Generation | undefined = newest.generation;
  while (next !== undefined && output.rows < limit) {
    const versionsMax = Math.min(limit - output.rows, 1000);
    const page = await past.versions({ offset, at: generationOf(next), versionsMax });
    for (const version of page.versions) await output.row(version, versionCells(name, version));
    next = page.next;
  }
  const more = next === undefined ? [] : ['', `older: varve blame ${name}@gen=${next} ${offset}`];
  await output.end({ next }, more);
}

const BLAME_HELP = `
Newest first, down to what the block held at the horizon. WHAT is data, trim, zero, blank (zeros that
were never written, or trimmed before the window) or base (what the volume is based on). REQUEST is
what the request that made it changed in all, in whole blocks. Each version can be opened at the
moments under SEEN BY.
OFFSET is a byte of the disk: 1048576, 1M or 0x100000; whoever has a sector multiplies it by 512.
`;

function addBlame(program: Command, setup: Setup): void {
  const command = program
    .command('blame <name> <offset>')
    .description('list the versions of one block: when it changed, and which moments show what')
    .option('--limit <count>', 'so many versions at most', VERSIONS_DEFAULT)
    .addHelpText('after', BLAME_HELP);
  shared(command, [
    'varve blame disk 1048576',
    'varve blame disk@before-upgrade 0x100000 --limit 100 --json',
  ]).action(async (text: string, where: string, flags: { readonly limit: string }) => {
    const { volume: name, moment } = parseExportName(text);
    const offset = byteOffset(parseOffset(where, '<offset>'));
    const limit = parseWhole(flags.limit, '--limit', { max: VERSIONS_LIMIT_MAX });
    const context = await contextOf(command, setup);
    await context.withOperator((operator) =>
      operator.withPast(name, (past) => sayBlame(context, past, { name, moment, offset, limit })),
    );
  });
}

export function addChangesCommands(program: Command, setup: Setup): void {
  addDiff(program, setup);
  addBlame(program, setup);
  addFind(program, setup);
}
