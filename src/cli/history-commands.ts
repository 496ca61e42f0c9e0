/** history, snapshot, mark: the past of a volume. */
import type { Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import { micros, type Micros } from '../base/units.ts';
import { sizeText } from '../control/size-text.ts';
import { parseMoment, timeText } from '../volume/moment.ts';
import type { HistoryInterval } from '../volume/report.ts';
import { contextOf, shared, type Setup } from './context.ts';
import { snapshotTable } from './info-text.ts';
import { say, sayJson, sparkline, tableText } from './output.ts';

const INTERVALS_DEFAULT = '24';
const INTERVALS_MAX = 1000;

interface HistoryFlags {
  readonly intervals: string;
  readonly from?: string;
  readonly to?: string;
}

/** A time, or a duration ago by the wall clock. */
function wallUsOf(text: string | undefined): Micros | undefined {
  if (text === undefined) return undefined;
  const moment = parseMoment(text);
  if (moment.kind === 'time') return moment.wallUs;
  if (moment.kind === 'ago') return micros(Math.max(0, Date.now() * 1000 - moment.agoUs));
  throw new VarveError('MOMENT_BAD', `"${text}": a time or a duration ago is needed here`);
}

function intervalsOf(text: string): number {
  const intervals = Number(text);
  if (Number.isSafeInteger(intervals) && intervals >= 1 && intervals <= INTERVALS_MAX) {
    return intervals;
  }
  throw new VarveError('USAGE', `--intervals: got "${text}", not 1 to ${INTERVALS_MAX}`);
}

async function historyText(name: string, intervals: readonly HistoryInterval[]): Promise<string> {
  const first = intervals[0];
  if (first === undefined) return `${name} has no history in that time`;
  const columns = [
    { head: 'FROM' },
    { head: 'TO' },
    { head: 'WRITES', align: 'right' },
    { head: 'WRITTEN', align: 'right' },
    { head: 'FLUSHES', align: 'right' },
    { head: 'MOMENT AT THE END' },
  ] as const;
  const rows = intervals.map((interval) => [
    timeText(interval.fromWallUs),
    timeText(interval.toWallUs),
    String(interval.writes),
    sizeText(interval.bytes),
    String(interval.flushes),
    `${name}@gen=${interval.generation}`,
  ]);
  const table = await tableText(columns, rows);
  if (!process.stdout.isTTY) return table;
  return `${table}\n\nwrites  |${sparkline(intervals.map(({ writes }) => writes))}|`;
}

function addHistory(program: Command, setup: Setup): void {
  const command = program
    .command('history <name>')
    .description('count writes, bytes and flushes over the window, to find the moment')
    .option('--intervals <count>', 'into how many intervals', INTERVALS_DEFAULT)
    .option('--from <time>', 'from this time on, or so long ago (default: the whole window)')
    .option('--to <time>', 'up to this time, or so long ago');
  shared(command, [
    'varve history disk',
    'varve history disk --from -10m --intervals 60',
    'varve history disk --from 2026-11-21T14:00:00Z --to 2026-11-21T14:05:00Z --json',
  ]).action(async (name: string, flags: HistoryFlags) => {
    const range = {
      intervals: intervalsOf(flags.intervals),
      fromWallUs: wallUsOf(flags.from),
      toWallUs: wallUsOf(flags.to),
    };
    const context = await contextOf(command, setup);
    const intervals = await context.withOperator((operator) => operator.history(name, range));
    if (context.isJson) return sayJson(intervals);
    say(await historyText(name, intervals));
  });
}

function addSnapshot(program: Command, setup: Setup): void {
  const group = program.command('snapshot').description('keep moments beyond the window');
  const create = group
    .command('create <name> <label>')
    .description('keep a moment, the present one or any of the window')
    .option('--at <moment>', 'which moment: a time, -10m, flush-3, gen=184467 or a mark');
  shared(create, [
    'varve snapshot create disk before-upgrade',
    'varve snapshot create disk rescued --at 2026-11-21T14:03:27Z',
    'varve snapshot create disk rescued --at -10m',
  ]).action(async (name: string, label: string, { at }: { readonly at?: string }) => {
    const context = await contextOf(create, setup);
    const made = await context.withOperator((operator) => operator.createSnapshot(name, label, at));
    if (context.isJson) return sayJson(made);
    const when = `generation ${made.generation}, ${timeText(made.momentWallUs)}`;
    say(`made ${name}@${label}: ${when}`);
  });
  const list = group.command('list <name>').description('list the snapshots of a volume');
  shared(list, ['varve snapshot list disk']).action(async (name: string) => {
    const context = await contextOf(list, setup);
    const all = await context.withOperator((operator) => operator.snapshots(name));
    if (context.isJson) return sayJson(all);
    say(all.length === 0 ? `${name} has no snapshots` : await snapshotTable(all));
  });
  const remove = group
    .command('delete <name> <label>')
    .description('let a snapshot go; its moment may leave the window then');
  shared(remove, ['varve snapshot delete disk before-upgrade']).action(
    async (name: string, label: string) => {
      const context = await contextOf(remove, setup);
      await context.withOperator((operator) => operator.deleteSnapshot(name, label));
      if (context.isJson) return sayJson({ name, label, deleted: true });
      say(`deleted ${name}@${label}`);
    },
  );
}

function addMark(program: Command, setup: Setup): void {
  const command = program
    .command('mark <name> <label>')
    .description('name the present moment, without keeping it beyond the window');
  shared(command, ['varve mark disk before-upgrade']).action(
    async (name: string, label: string) => {
      const context = await contextOf(command, setup);
      const made = await context.withOperator((operator) => operator.mark(name, label));
      if (context.isJson) return sayJson(made);
      say(`marked ${name}@${label}: generation ${made.generation}, ${timeText(made.wallUs)}`);
    },
  );
}

export function addHistoryCommands(program: Command, setup: Setup): void {
  addHistory(program, setup);
  addSnapshot(program, setup);
  addMark(program, setup);
}
