/** retention: how finely the past of a disk is kept as it gets older. */
import type { Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import { byteCount, micros, type ByteCount, type Micros } from '../base/units.ts';
import { parseSize, sizeText } from '../control/size-text.ts';
import {
  NO_RETENTION,
  RULE_COUNT_MAX,
  RULES,
  type RetentionChange,
} from '../volume/retention-policy.ts';
import { contextOf, shared, type Setup } from './context.ts';
import { snapshotTable } from './info-text.ts';
import { durationUs, parseWhole } from './numbers.ts';
import { say, sayJson } from './output.ts';
import { policyText, retentionText } from './retention-text.ts';

interface RetentionFlags {
  readonly everyWrite?: string;
  readonly hourly?: string;
  readonly daily?: string;
  readonly weekly?: string;
  readonly maxBytes?: string;
  readonly none?: boolean;
}

const ABOUT = `
Without options it shows what holds. Options that are not given stay as they are; a rule of 0 ends it.

While the log covers a moment, it opens: every write. When moments leave the window, the last one of
an hour, day or week (UTC) becomes an automatic snapshot, as the rules ask, named by the end of its
hour: disk@auto-2026-11-21T14:00:00Z. An hour in which nothing was written needs none. Each goes when no
rule needs it any more. What no rule keeps from now on goes at once: give one that you want a name of
its own before, by \`varve snapshot create disk keep --at auto-2026-11-21T14:00:00Z\`.

--every-write makes rounds wait for as long as the log has room; a log can't hold more than it holds,
and writers never wait for it: the forecast says how long the window lasts at the present rate, and
which log would do. --max-bytes counts blocks that were replaced and are kept, for all snapshots and
open moments. Before it would be more, and before the undo device is full, the oldest automatic
snapshots go; those that you have named never do.
`;

/** @throws VarveError RETENTION_BAD */
function everyWriteOf(text: string | undefined): Micros | undefined {
  if (text === undefined) return undefined;
  if (text === 'none' || text === '0') return micros(0);
  const us = durationUs(text);
  if (us !== undefined && us > 0) return micros(us);
  throw new VarveError(
    'RETENTION_BAD',
    `--every-write: got "${text}", not none or such as 2h, 90m`,
  );
}

function maxBytesOf(text: string | undefined): ByteCount | undefined {
  if (text === undefined) return undefined;
  return text === 'none' || text === '0' ? byteCount(0) : parseSize(text);
}

/** @returns undefined when nothing is to be changed */
function changeOf({ none, ...flags }: RetentionFlags): RetentionChange | undefined {
  const counts = RULES.map((rule) => {
    const text = flags[rule];
    return text === undefined
      ? undefined
      : parseWhole(text, `--${rule}`, { min: 0, max: RULE_COUNT_MAX });
  });
  const [hourly, daily, weekly] = counts;
  const everyWriteUs = everyWriteOf(flags.everyWrite);
  const maxBytes = maxBytesOf(flags.maxBytes);
  const change = { everyWriteUs, hourly, daily, weekly, maxBytes };
  const isAny = Object.values(change).some((value) => value !== undefined);
  if (none !== true) return isAny ? change : undefined;
  if (isAny) throw new VarveError('USAGE', '--none ends all of it, and takes no other option');
  return NO_RETENTION;
}

async function act(setup: Setup, command: Command, name: string): Promise<void> {
  const change = changeOf(command.optsWithGlobals<RetentionFlags>());
  const context = await contextOf(command, setup);
  if (change === undefined) {
    const info = await context.withOperator((operator) => operator.info(name));
    const automatic = info.snapshots.filter(({ isAutomatic }) => isAutomatic);
    if (context.isJson) return sayJson({ name, ...info.retention, snapshots: automatic });
    say(retentionText(name, info));
    if (automatic.length > 0) say(`\n${await snapshotTable(automatic)}`);
    return;
  }
  const report = await context.withOperator((operator) => operator.setRetention(name, change));
  if (context.isJson) return sayJson({ name, ...report });
  say(`retention of ${name}: ${policyText(report.policy)}`);
  const { deleted, freedBytes } = report;
  if (deleted.length === 0) return;
  say(`deleted ${deleted.length} automatic snapshots, ${sizeText(freedBytes)} given back:`);
  for (const label of deleted) say(`  ${label}`);
}

export function addRetention(program: Command, setup: Setup): void {
  const command = program
    .command('retention <name>')
    .description('keep hourly, daily and weekly moments beyond the window, within a limit')
    .option('--every-write <duration>', 'how long every write should stay openable, or none')
    .option('--hourly <count>', 'of so many hours the last moment is kept')
    .option('--daily <count>', 'of so many days')
    .option('--weekly <count>', 'of so many weeks, which end on Sunday')
    .option('--max-bytes <size>', 'what history may hold beyond the window, or none')
    .option('--none', 'keep nothing automatically any more')
    .addHelpText('after', ABOUT);
  shared(command, [
    'varve retention disk --every-write 2h --hourly 24 --daily 7 --weekly 4 --max-bytes 50G',
    'varve retention disk                       shows the rules, the window and what is held',
    'varve retention disk --daily 14            changes one rule',
    'varve retention disk --none',
  ]).action((name: string) => act(setup, command, name));
}
