/** top: what the served volumes do at present. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import { micros } from '../base/units.ts';
import type { Operator } from '../control/operations.ts';
import { timeText } from '../volume/moment.ts';
import { contextOf, shared, type Setup } from './context.ts';
import { durationUs } from './numbers.ts';
import { say, tableText } from './output.ts';
import { LOAD_COLUMNS, loadCells, loadOf, type Load, type Look } from './rates.ts';
import { untilSignal } from './signals.ts';

const INTERVAL_DEFAULT = '1s';
const INTERVAL_MS_MIN = 100;
const INTERVAL_MS_MAX = 3_600_000;

const HIDE_CURSOR = '\u001b[?25l';
const SHOW_CURSOR = '\u001b[?25h';
const CLEAR = '\u001b[2J';
const HOME = '\u001b[H';
const CLEAR_LINE = '\u001b[K';
const CLEAR_REST = '\u001b[J';

interface TopFlags {
  readonly once?: boolean;
  readonly interval: string;
}

function intervalMsOf(text: string): number {
  const ms = (durationUs(text) ?? NaN) / 1000;
  if (ms >= INTERVAL_MS_MIN && ms <= INTERVAL_MS_MAX) return ms;
  throw new VarveError('USAGE', `--interval: got "${text}", not a duration from 100ms to 1h`);
}

async function look(operator: Operator, name: string | undefined): Promise<Map<string, Look>> {
  const names = name === undefined ? (await operator.list()).map((one) => one.name) : [name];
  const looks = new Map<string, Look>();
  for (const one of names) {
    const info = await operator.info(one);
    const [atUs, wallUs] = [performance.now() * 1000, Date.now() * 1000];
    looks.set(one, { name: one, atUs, wallUs, info });
  }
  return looks;
}

async function screenText(loads: readonly Load[]): Promise<string> {
  if (loads.length === 0) return 'no volumes';
  const table = await tableText(LOAD_COLUMNS, loads.map(loadCells));
  const troubles = loads.flatMap(({ name, trouble }) =>
    trouble === undefined ? [] : [{ name, trouble }],
  );
  const told = troubles.map(({ name, trouble }) => `${name}: ${trouble}`);
  return told.length === 0 ? table : `${table}\n\n${told.join('\n')}`;
}

/** How a round of looks is said. */
type Say = (loads: readonly Load[]) => Promise<void>;

const sayLines: Say = async (loads) => {
  for (const load of loads) say(JSON.stringify(load));
};

const sayTable: Say = async (loads) => {
  say(await screenText(loads));
};

/** Over what stood there, without a flicker. */
const redraw: Say = async (loads) => {
  const head = `varve top, ${timeText(micros(Date.now() * 1000)).slice(0, 19)}Z; Ctrl-C ends it`;
  const lines = [head, '', ...(await screenText(loads)).split('\n')];
  process.stdout.write(
    `${HOME}${lines.map((line) => `${line}${CLEAR_LINE}\n`).join('')}${CLEAR_REST}`,
  );
};

interface Watch {
  readonly name: string | undefined;
  readonly intervalMs: number;
  readonly once: boolean;
  readonly say: Say;
}

/** Looks until a signal ends it, or once. */
async function watch(
  operator: Operator,
  { name, intervalMs, once, say: tell }: Watch,
): Promise<void> {
  await untilSignal(async (signal) => {
    let before = await look(operator, name);
    do {
      await delay(intervalMs, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      const now = await look(operator, name);
      const loads: Load[] = [];
      // One that was made since the last look has no rates yet.
      for (const one of now.values()) loads.push(loadOf(before.get(one.name) ?? one, one));
      await tell(loads);
      before = now;
    } while (!once && !signal.aborted);
  });
}

const TOP_HELP = `
What each volume does in a second, over the last interval: requests and bytes that clients read and
wrote, TRIMS with zeroes, flushes; how full log and ring are, and how far back the window reaches. On a
terminal it is drawn again and again until Ctrl-C; elsewhere, or with --json, each interval adds lines.
`;

export function addTop(program: Command, setup: Setup): void {
  const command = program
    .command('top [name]')
    .description('watch what the served volumes do')
    .option('--once', 'measure one interval, and end')
    .option('--interval <duration>', 'how long an interval is', INTERVAL_DEFAULT)
    .addHelpText('after', TOP_HELP);
  shared(command, [
    'varve top',
    'varve top disk --once',
    'varve top --interval 10s --json >> load.jsonl',
  ]).action(async (name: string | undefined, flags: TopFlags) => {
    const intervalMs = intervalMsOf(flags.interval);
    const context = await contextOf(command, setup);
    const once = flags.once === true;
    const isScreen = process.stdout.isTTY && !context.isJson && !once;
    const told = context.isJson ? sayLines : isScreen ? redraw : sayTable;
    await context.withOperator(async (operator) => {
      if (!operator.isServed) {
        throw new VarveError('SERVER_NEEDED', `nobody serves ${context.directory.path}`);
      }
      if (isScreen) process.stdout.write(HIDE_CURSOR + CLEAR);
      try {
        await watch(operator, { name, intervalMs, once, say: told });
      } finally {
        if (isScreen) process.stdout.write(SHOW_CURSOR);
      }
    });
  });
}
