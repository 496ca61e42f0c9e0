/** history, snapshot, mark: the past of a volume. */
import type { Command } from 'commander';
import { isVarveError, VarveError } from '../base/errors.ts';
import { micros, type Micros } from '../base/units.ts';
import { sizeText } from '../control/size-text.ts';
import { parseMoment, timeText } from '../volume/moment.ts';
import type { HistoryInterval } from '../volume/report.ts';
import { contextOf, shared, type Context, type Setup } from './context.ts';
import { historyBars } from './history-bars.ts';
import { rollbackText, snapshotTable } from './info-text.ts';
import { durationUs, parseWhole } from './numbers.ts';
import { say, sayJson, tableText } from './output.ts';

const INTERVALS_DEFAULT = '24';
const INTERVALS_MAX = 1000;

const SPAN_DEFAULT = '10m';
const CLOCK = /^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$/;
const DAY_US = 86_400_000_000;
const WIDTH_DEFAULT = 100;

interface HistoryFlags {
  readonly intervals: string;
  readonly from?: string;
  readonly to?: string;
  readonly around?: string;
  readonly span?: string;
}

interface TimeSpan {
  readonly fromWallUs: Micros | undefined;
  readonly toWallUs: Micros | undefined;
  readonly aroundUs?: Micros | undefined;
}

/** A time, or a duration ago by the wall clock; undefined: another kind of moment. */
function timeUsOf(text: string): Micros | undefined {
  if (CLOCK.test(text)) return lastClock(text);
  const moment = parseMoment(text);
  if (moment.kind === 'ago') return micros(Math.max(0, Date.now() * 1000 - moment.agoUs));
  return moment.kind === 'time' ? moment.wallUs : undefined;
}

/** @throws VarveError MOMENT_BAD unless it is a time, or a duration ago */
function wallUsOf(text: string | undefined, option: string): Micros | undefined {
  if (text === undefined) return undefined;
  let found: Micros | undefined;
  try {
    found = timeUsOf(text);
  } catch (error) {
    if (!isVarveError(error)) throw error;
  }
  if (found !== undefined) return found;
  const next = 'write a time such as 2026-11-21T14:03:27Z or 14:03 (UTC), or so long ago: -10m';
  throw new VarveError('MOMENT_BAD', `${option}: got "${text}"`, { next });
}

/** The last time that the clock showed this, in UTC. */
function lastClock(text: string): Micros {
  const nowUs = Date.now() * 1000;
  const dayUs = nowUs - (nowUs % DAY_US);
  const [hours = 0, minutes = 0, seconds = 0] = text.split(':').map(Number);
  const today = dayUs + ((hours * 60 + minutes) * 60 + seconds) * 1_000_000;
  return micros(today <= nowUs ? today : today - DAY_US);
}

/** @throws VarveError MOMENT_FUTURE */
function needPast(wallUs: Micros, text: string | undefined): void {
  if (wallUs > Date.now() * 1000) throw new VarveError('MOMENT_FUTURE', `"${text}"`);
}

/** @throws VarveError USAGE */
function spanUsOf(text: string): number {
  const span = durationUs(text);
  if (span !== undefined && span > 0) return span;
  throw new VarveError('USAGE', `--span: got "${text}", not a duration such as 10m or 90s`);
}

/** @throws VarveError USAGE, MOMENT_* */
async function timeSpanOf(context: Context, name: string, flags: HistoryFlags): Promise<TimeSpan> {
  const { from, to, around, span } = flags;
  if (around === undefined) {
    if (span !== undefined) throw new VarveError('USAGE', '--span belongs to --around');
    const [fromWallUs, toWallUs] = [wallUsOf(from, '--from'), wallUsOf(to, '--to')];
    if (fromWallUs !== undefined) needPast(fromWallUs, from);
    if (fromWallUs !== undefined && toWallUs !== undefined && fromWallUs >= toWallUs) {
      throw new VarveError('USAGE', `--from comes before --to; got ${from} and ${to}`);
    }
    return { fromWallUs, toWallUs };
  }
  if (from !== undefined || to !== undefined) {
    throw new VarveError('USAGE', 'give --around, or --from and --to');
  }
  const half = spanUsOf(span ?? SPAN_DEFAULT) / 2;
  const aroundUs = await aroundUsOf(context, name, around);
  return {
    fromWallUs: micros(Math.max(0, Math.floor(aroundUs - half))),
    toWallUs: micros(Math.ceil(aroundUs + half)),
    aroundUs,
  };
}

/** When a moment was; a time may also lie outside the window. */
async function aroundUsOf(context: Context, name: string, text: string): Promise<Micros> {
  const known = timeUsOf(text);
  if (known !== undefined) {
    needPast(known, text);
    return known;
  }
  return await context.withOperator((operator) =>
    operator.withPast(name, async (past) => (await past.point(text)).wallUs),
  );
}

async function historyText(name: string, intervals: readonly HistoryInterval[]): Promise<string> {
  const columns = [
    { head: 'FROM' },
    { head: 'TO' },
    { head: 'WRITES', align: 'right' },
    { head: 'WRITTEN', align: 'right' },
    { head: 'TRIMS', align: 'right' },
    { head: 'TRIMMED', align: 'right' },
    { head: 'FLUSHES', align: 'right' },
    { head: 'MOMENT AT THE END' },
  ] as const;
  const rows = intervals.map((interval) => [
    timeText(interval.fromWallUs),
    timeText(interval.toWallUs),
    String(interval.writes),
    sizeText(interval.bytes),
    String(interval.trims),
    sizeText(interval.trimmedBytes),
    String(interval.flushes),
    `${name}@gen=${interval.generation}`,
  ]);
  return await tableText(columns, rows);
}

/** Writes of a rollback are no client's. */
function rollbackLines(name: string, intervals: readonly HistoryInterval[]): readonly string[] {
  const all = intervals.flatMap(({ rollbacks }) => rollbacks);
  if (all.length === 0) return [];
  const note =
    'rollbacks (their own writes and trims are counted above; no moment of theirs opens):';
  return ['', note, ...all.map((one) => `  ${rollbackText(name, one)}`)];
}

const HISTORY_HELP = `
Writes, trims and flushes of each interval, and the moment at its end. TRIMS are requests that made
whole blocks zeros: trims (a file system mounted with discard sends them for what is deleted) and
zeroes. On a terminal the counts are drawn as bars, in which a burst is seen; elsewhere they are a
table. --around takes any moment, and a clock such as 14:03, the last one in UTC.
`;

function addHistory(program: Command, setup: Setup): void {
  const command = program
    .command('history <name>')
    .description('show writes, trims and flushes over the window, to find the moment')
    .option('--intervals <count>', 'into how many intervals', INTERVALS_DEFAULT)
    .option('--from <time>', 'from this time on, or so long ago (default: the whole window)')
    .option('--to <time>', 'up to this time, or so long ago')
    .option('--around <moment>', 'around this time or moment; marked with > on a terminal')
    .option('--span <duration>', `with --around: how much in all (default: ${SPAN_DEFAULT})`)
    .addHelpText('after', HISTORY_HELP);
  shared(command, [
    'varve history disk',
    'varve history disk --from -10m --intervals 60',
    'varve history disk --around 14:03 --span 4m',
    'varve history disk --from 2026-11-21T14:00:00Z --to 2026-11-21T14:05:00Z --json',
  ]).action(async (name: string, flags: HistoryFlags) => {
    const count = parseWhole(flags.intervals, '--intervals', { max: INTERVALS_MAX });
    const context = await contextOf(command, setup);
    const { aroundUs, ...span } = await timeSpanOf(context, name, flags);
    const range = { intervals: count, ...span };
    const intervals = await context.withOperator((operator) => operator.history(name, range));
    if (context.isJson) return sayJson(intervals);
    if (intervals.length === 0) {
      const { horizon, head } = await context.withOperator((operator) => operator.info(name));
      const when = aroundUs === undefined ? 'in that time' : `around ${timeText(aroundUs)}`;
      const window = `${timeText(horizon.wallUs)} to ${timeText(head.wallUs)}`;
      return say(`no history of ${name} ${when}; the window is ${window}`);
    }
    const width = process.stdout.columns || WIDTH_DEFAULT;
    const drawn = process.stdout.isTTY
      ? historyBars({ name, intervals, width, aroundUs })
      : await historyText(name, intervals);
    say([drawn, ...rollbackLines(name, intervals)].join('\n'));
  });
}

const SNAPSHOT_EXAMPLES = [
  'varve snapshot create disk rescued --at -10m',
  'varve snapshot list disk',
  'varve snapshot delete disk rescued',
];

function addSnapshot(program: Command, setup: Setup): void {
  const group = program
    .command('snapshot')
    .description('keep moments beyond the window')
    .addHelpText(
      'after',
      `\nExamples:\n${SNAPSHOT_EXAMPLES.map((line) => `  $ ${line}`).join('\n')}` +
        '\n\n`varve snapshot create --help` has more.',
    );
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
