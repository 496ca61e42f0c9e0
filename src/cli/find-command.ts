/** find: the moments at which a block changed, or at which a pattern came and went. */
import type { Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import { BLOCK_BYTES, byteOffset, type ByteOffset, type Generation } from '../base/units.ts';
import { parseExportName } from '../control/export-directory.ts';
import type { Past } from '../control/past.ts';
import { parseSize, sizeText } from '../control/size-text.ts';
import { timeText } from '../volume/moment.ts';
import {
  PAGE_MAX,
  PATTERN_BYTES_MAX,
  type PastWindow,
  type SearchPage,
  type Spell,
} from '../volume/past-report.ts';
import type { PointInTime } from '../volume/report.ts';
import { contextOf, shared, type Context, type Setup } from './context.ts';
import { ListOutput } from './list-output.ts';
import { parseOffset, parseWhole } from './numbers.ts';

const CHANGE_COLUMNS = [
  { head: 'TIME', width: 27 },
  { head: 'CHANGE', width: 6 },
  { head: 'REQUEST', width: 10, align: 'right' },
  { head: 'AFTER IT', width: 20 },
  { head: 'BEFORE IT', width: 9 },
] as const;

const SPELL_COLUMNS = [
  { head: 'OFFSET', width: 16, align: 'right' },
  { head: 'APPEARED', width: 27 },
  { head: 'GONE', width: 27 },
  { head: 'LAST MOMENT WITH IT', width: 19 },
] as const;

const LIMIT_DEFAULT = '1000';
const LIMIT_MAX = 1_000_000_000;
/** Tries to take hold of the horizon, which may move on just then. */
const HOLD_TRIES = 5;

interface FindFlags {
  readonly changedAt?: string;
  readonly bytes?: string;
  readonly at?: string;
  readonly length?: string;
  readonly from?: string;
  readonly to?: string;
  readonly throughout?: boolean;
  readonly limit: string;
}

interface Span {
  readonly window: PastWindow;
  readonly from: PointInTime;
  readonly to: PointInTime;
}

/** @throws VarveError USAGE */
function parsePattern(text: string): Buffer {
  const isHex = text.startsWith('hex:');
  const digits = text.slice(4).replaceAll(/[\s_]/g, '');
  if (isHex && !/^(?:[0-9a-f]{2})+$/i.test(digits)) {
    throw new VarveError('USAGE', `--bytes: got "${text}", hex: needs two digits a byte`);
  }
  const rest = text.startsWith('text:') ? text.slice(5) : text;
  const pattern = isHex ? Buffer.from(digits, 'hex') : Buffer.from(rest);
  if (pattern.length >= 1 && pattern.length <= PATTERN_BYTES_MAX) return pattern;
  throw new VarveError(
    'USAGE',
    `--bytes: ${pattern.length} bytes, 1 to ${PATTERN_BYTES_MAX} can be found`,
  );
}

/** Runs `work` with the oldest moment of the span open, so that it does not leave meanwhile. */
async function withSpan<T>(
  past: Past,
  flags: FindFlags,
  work: (span: Span) => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    const window = await past.window();
    const from = flags.from === undefined ? window.horizon : await past.point(flags.from);
    const to = flags.to === undefined ? window.head : await past.point(flags.to);
    if (from.generation > to.generation) {
      const both = `gen=${from.generation} is later than gen=${to.generation}`;
      throw new VarveError('USAGE', `--from comes before --to; ${both}`);
    }
    let held;
    try {
      held = await past.open(from.generation);
    } catch (error) {
      if (flags.from === undefined && tries < HOLD_TRIES && isOutside(error)) continue;
      throw error;
    }
    try {
      return await work({ window, from, to });
    } finally {
      await held.device.close();
    }
  }
}

function isOutside(error: unknown): boolean {
  return error instanceof VarveError && error.code === 'MOMENT_OUTSIDE';
}

interface FindTask {
  readonly context: Context;
  readonly name: string;
  readonly limit: number;
}

async function sayChanges(
  { context, name, limit }: FindTask,
  past: Past,
  { offset, from, to }: Span & { readonly offset: ByteOffset },
): Promise<void> {
  const head = { json: { name, changedAt: offset, from, to }, lines: [] };
  const output = new ListOutput('changes', CHANGE_COLUMNS, { isJson: context.isJson, head });
  let next: Generation | undefined = to.generation;
  while (next !== undefined && next > from.generation && output.rows < limit) {
    const page = await past.versions({ offset, at: next, versionsMax: PAGE_MAX });
    next = page.next;
    for (const { generation, wallUs, kind, requestBytes } of page.versions) {
      if (output.rows === limit) {
        next = generation;
        break;
      }
      // The last one is what was there before; so is the rest.
      const isChange = generation !== undefined && generation > from.generation;
      if (!isChange || requestBytes === undefined || wallUs === undefined) {
        next = undefined;
        break;
      }
      const after = `${name}@gen=${generation}`;
      const before = `${name}@gen=${generation - 1}`;
      const value = { generation, wallUs, kind, requestBytes, after, before };
      const cells = [timeText(wallUs), kind, sizeText(requestBytes), after, before];
      await output.row(value, cells);
    }
  }
  const isMore = next !== undefined && next > from.generation;
  const span = `from gen=${from.generation} to gen=${to.generation}`;
  const told = output.rows === 0 ? [`nothing changed there ${span}`] : [];
  const more = isMore ? ['', `more before gen=${next}: give --to gen=${next}, or a --limit`] : [];
  await output.end({ next: isMore ? next : undefined }, [...told, ...more]);
}

function pointCell(point: PointInTime | undefined, none: string): string {
  return point === undefined ? none : timeText(point.wallUs);
}

/** What a search adds up to. */
class Sum {
  versions = 0;
  throughout = 0;
  unreadable = 0;
  left = 0;
  /** The newest moment that has what is gone now. */
  lastGone: Generation | undefined;

  add(page: SearchPage): void {
    this.versions += page.versions;
    this.throughout += page.throughout;
    this.unreadable += page.unreadable;
    this.left += page.left;
  }

  see({ last, gone }: Spell): void {
    if (gone !== undefined && last > (this.lastGone ?? -1)) this.lastGone = last;
  }
}

interface Sought {
  readonly pattern: Buffer;
  readonly offset: ByteOffset;
  readonly end: ByteOffset;
  readonly throughout: boolean;
}

async function saySpells(
  { context, name, limit }: FindTask,
  past: Past,
  { pattern, offset, end, throughout, from, to }: Span & Sought,
): Promise<void> {
  const json = { name, bytes: pattern.toString('hex'), offset, end, from, to };
  const output = new ListOutput('spells', SPELL_COLUMNS, {
    isJson: context.isJson,
    head: { json, lines: [] },
  });
  const sum = new Sum();
  const span = { from: from.generation, to: to.generation };
  let next: ByteOffset | undefined = offset;
  await context.withProgress(`searching ${name}`, async (progress) => {
    while (next !== undefined && output.rows < limit) {
      const spellsMax = Math.min(PAGE_MAX, limit - output.rows);
      const query = { pattern, offset, end, next, throughout, spellsMax, ...span };
      const page: SearchPage = await past.search(query, progress);
      sum.add(page);
      for (const spell of page.spells) {
        sum.see(spell);
        const opened = `${name}@gen=${spell.last}`;
        const since = pointCell(spell.since, `before gen=${from.generation + 1}`);
        const gone = pointCell(spell.gone, 'still there');
        const cells = [String(spell.offset), since, gone, opened];
        await output.row({ ...spell, open: opened }, cells);
      }
      next = page.next;
    }
  });
  const open = sum.lastGone === undefined ? undefined : `${name}@gen=${sum.lastGone}`;
  const { versions, unreadable, left } = sum;
  await output.end({ open, next, versions, throughout: sum.throughout, unreadable, left }, [
    ...(output.rows === 0 ? ['it did not come or go there'] : ['']),
    ...searchNotes(sum, { throughout, limited: next }),
    ...(open === undefined ? [] : [`the last moment that has some of what is gone: ${open}`]),
  ]);
}

function searchNotes(
  { versions, throughout, unreadable, left }: Sum,
  asked: { readonly throughout: boolean; readonly limited: ByteOffset | undefined },
): string[] {
  const notes = [`read ${versions} versions of blocks`];
  if (!asked.throughout) {
    notes.push('blocks that did not change in that time were not searched; --throughout does that');
  }
  if (throughout > 0) {
    notes.push(
      `${throughout} places in blocks that changed had it all the time; --throughout names them`,
    );
  }
  if (unreadable > 0) notes.push(`UNREADABLE  ${unreadable} versions; it may have been in them`);
  if (left > 0)
    notes.push(`${left} more in blocks that have very many; search for a longer pattern`);
  if (asked.limited !== undefined) {
    notes.push(
      `more from byte ${asked.limited} on: give --at ${asked.limited} and a --length, or a --limit`,
    );
  }
  return notes;
}

/** Where a place may begin. */
function regionOf(flags: FindFlags, size: number): { offset: ByteOffset; end: ByteOffset } {
  const at = flags.at === undefined ? 0 : parseOffset(flags.at, '--at');
  if (at >= size) throw new VarveError('REQUEST_BAD', `--at ${at}: the disk has ${size} bytes`);
  if (flags.length !== undefined) {
    const end = Math.min(size, at + parseSize(flags.length));
    return { offset: byteOffset(at), end: byteOffset(end) };
  }
  if (flags.at === undefined) return { offset: byteOffset(0), end: byteOffset(size) };
  const first = at - (at % BLOCK_BYTES);
  const end = Math.min(size, first + BLOCK_BYTES);
  return { offset: byteOffset(first), end: byteOffset(end) };
}

const FIND_HELP = `
--changed-at lists the requests that changed the block at that byte, newest first, each with the
moment after it and the one before, ready to be opened; a block counts as changed also when it was
written with the same bytes.

--bytes searches the blocks that changed between the two moments, each of their versions once, and
says for each place from when to when it had the pattern: the disk was read at no other moment.
Patterns over the edge of two blocks are found, wherever a file system has put them side by side; a
pattern that lies in two blocks which are not neighbours is not. Compressed or encrypted content is
not looked into. A pattern has 1 to ${PATTERN_BYTES_MAX} bytes: text as it is (UTF-8; text: before it where it
begins with hex: itself), or hex:0aff. Deleting a file without discard leaves its content where it
was: search for its name, or for what overwrote it, or give --throughout, which reads every block.
`;

export function addFind(program: Command, setup: Setup): void {
  const command = program
    .command('find <name>')
    .description('find the moments at which something changed, came or went')
    .option('--changed-at <offset>', 'when the block at this byte changed')
    .option('--bytes <pattern>', 'when this text, or hex:0aff, came and went')
    .option('--at <offset>', 'with --bytes: only in the block at this byte')
    .option('--length <size>', 'with --bytes: only so many bytes from --at on')
    .option('--throughout', 'with --bytes: also where it was all the time; reads every block')
    .option('--from <moment>', 'from this moment on (default: the whole window)')
    .option('--to <moment>', 'up to this moment (default: now)')
    .option('--limit <count>', 'so many lines at most', LIMIT_DEFAULT)
    .addHelpText('after', FIND_HELP);
  shared(command, [
    'varve find disk --changed-at 0x100000',
    'varve find disk --changed-at 1M --from -10m --json',
    'varve find disk --bytes thesis.tex',
    "varve find disk --bytes 'hex:53ef' --at 1024 --from -1h --to -10m",
  ]).action(async (name: string, flags: FindFlags) => {
    if ((flags.changedAt === undefined) === (flags.bytes === undefined)) {
      throw new VarveError(
        'USAGE',
        'find needs --changed-at OFFSET or --bytes PATTERN, one of them',
      );
    }
    if (parseExportName(name).moment !== undefined) {
      throw new VarveError('USAGE', `"${name}": give the moments by --from and --to`);
    }
    const limit = parseWhole(flags.limit, '--limit', { max: LIMIT_MAX });
    const pattern = flags.bytes === undefined ? undefined : parsePattern(flags.bytes);
    const where = flags.changedAt === undefined ? 0 : parseOffset(flags.changedAt, '--changed-at');
    const context = await contextOf(command, setup);
    const task = { context, name, limit };
    await context.withOperator((operator) =>
      operator.withPast(name, (past) =>
        withSpan(past, flags, async (span) => {
          if (pattern === undefined) {
            await sayChanges(task, past, { ...span, offset: byteOffset(where) });
            return;
          }
          const region = regionOf(flags, span.window.size);
          const throughout = flags.throughout === true;
          await saySpells(task, past, { ...span, ...region, pattern, throughout });
        }),
      ),
    );
  });
}
