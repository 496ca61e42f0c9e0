/** explore: every state that a power cut could have left, given to a check. */
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import type { Explored, ExploreOptions } from '../control/explorer.ts';
import type { DeviceFile, NodeJudge } from '../control/node-judge.ts';
import { parseSize } from '../control/size-text.ts';
import { contextOf, shared, type Context, type Setup } from './context.ts';
import { reportText } from './explore-text.ts';
import { parseWhole } from './numbers.ts';
import { say, sayJson } from './output.ts';
import { untilSignal } from './signals.ts';

interface ExploreFlags {
  readonly from: string;
  readonly to: string;
  readonly check: string;
  readonly jobs: string;
  readonly maxStates: string;
  readonly maxFindings: string;
  readonly seed: string;
  readonly timeout: string;
  readonly scratch: string;
  readonly device: string;
  readonly torn?: boolean;
}

/** A state fails: neither done nor failed, since what was asked was done, and something was found. */
const FOUND_STATUS = 3;
const FAILED_STATUS = 1;
const DEVICE_FILES: readonly DeviceFile[] = ['auto', 'nbdfuse', 'none'];
const STATES_MAX = 1_000_000;
const TIMEOUT_S_MAX = 1_000_000;

const ABOUT = `
The check runs in /bin/sh once for each state, with these in its environment:
  VARVE_DEVICE    the state as a file that can be written to (where nbdfuse is installed)
  VARVE_URI       the state as an NBD export, also writable
  VARVE_SCRATCH   an empty directory, removed afterwards
It ends with 0 where the disk is in order. What it writes to a state is forgotten.

Exit status: 0 no state fails, 3 one does, 1 it could not be done, 2 asked wrongly.`;

function deviceFileOf(text: string): DeviceFile {
  const found = DEVICE_FILES.find((known) => known === text);
  if (found !== undefined) return found;
  throw new VarveError('USAGE', `--device: got "${text}", not one of ${DEVICE_FILES.join(', ')}`);
}

function optionsOf(flags: ExploreFlags): ExploreOptions {
  return {
    statesMax: parseWhole(flags.maxStates, '--max-states', { max: STATES_MAX }),
    seed: parseWhole(flags.seed, '--seed', { min: 0, max: 2 ** 32 - 1 }),
    torn: flags.torn === true,
    jobs: parseWhole(flags.jobs, '--jobs', { max: 256 }),
    findingsMax: parseWhole(flags.maxFindings, '--max-findings', { max: 1000 }),
    scratchBytes: parseSize(flags.scratch),
  };
}

async function run(
  context: Context,
  name: string,
  { flags, options, judge }: { flags: ExploreFlags; options: ExploreOptions; judge: NodeJudge },
): Promise<Explored> {
  const { explore } = await import('../control/explorer.ts');
  const { clock } = context.tools.serverPorts.world;
  const ends = { from: flags.from, to: flags.to };
  return await untilSignal((signal) =>
    context.withOperator((operator) =>
      operator.withHistory(name, ends, (history) =>
        context.withProgress(`exploring ${name}`, (progress) =>
          explore(history, options, { judge, clock, progress, signal }),
        ),
      ),
    ),
  );
}

async function act(setup: Setup, command: Command, name: string): Promise<void> {
  const flags = command.opts<ExploreFlags>();
  const options = optionsOf(flags);
  const timeoutMs = parseWhole(flags.timeout, '--timeout', { max: TIMEOUT_S_MAX }) * 1000;
  const deviceFile = deviceFileOf(flags.device);
  const context = await contextOf(command, setup);
  const { NodeJudge: Runner } = await import('../control/node-judge.ts');
  const { timers } = context.tools.serverPorts.world;
  const judge = await Runner.start({ command: flags.check, timeoutMs, deviceFile, timers });
  let explored: Explored;
  try {
    explored = await run(context, name, { flags, options, judge });
  } finally {
    await judge.close();
  }
  const { report, error } = explored;
  if (context.isJson) sayJson({ name, check: flags.check, ...report });
  else {
    if (!judge.hasFile) say('nbdfuse can not be used here: checks have no VARVE_DEVICE');
    say(reportText(name, report));
  }
  if (report.failed > 0) setup.setStatus(FOUND_STATUS);
  else if (report.isInterrupted) setup.setStatus(FAILED_STATUS);
  if (error !== undefined) throw error;
}

export function addExplore(program: Command, setup: Setup): void {
  const command = program
    .command('explore <name>')
    .description('run a check on every state that a power cut between two moments could leave')
    .requiredOption('--from <moment>', 'what is there in every state; the check passes on it')
    .option('--to <moment>', 'the last moment that is looked at; -0s: now', '-0s')
    .requiredOption('--check <command>', 'ends with 0 where a disk is in order; see below')
    .option('--jobs <count>', 'checks at a time', String(availableParallelism()))
    .option('--max-states <count>', 'states to look at', '1000')
    .option('--seed <number>', 'chooses among states where there are more than that', '1')
    .option('--torn', 'also requests torn between sectors of 512 bytes')
    .option('--timeout <seconds>', 'for each check; one that takes longer has failed', '60')
    .option('--max-findings <count>', 'explanations to look for', '10')
    .option('--scratch <size>', 'what a check may write to a state, in memory', '256M')
    .option('--device <how>', 'the state as a file: auto, nbdfuse or none', 'auto');
  shared(command, [
    'varve explore disk --from -5m --check \'e2fsck -p "$VARVE_DEVICE"; e2fsck -fn "$VARVE_DEVICE"\'',
    "varve explore disk --from before-test --to after-test --check './check.sh' --torn --json",
    'varve explore disk --from flush-20 --check \'qemu-img check "$VARVE_URI"\' --device none',
  ])
    .addHelpText('after', ABOUT)
    .action((name: string) => act(setup, command, name));
}
