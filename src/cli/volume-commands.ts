/** create, list, info, mode, check, scrub: volumes as a whole. */
import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import { parseSize, sizeText } from '../control/size-text.ts';
import type { ImageFormat } from '../image/base-image.ts';
import { timeText } from '../volume/moment.ts';
import type { Damage, SeenBy } from '../volume/report.ts';
import { contextOf, parseMode, shared, type Setup } from './context.ts';
import { imageFormatOf } from './image-format.ts';
import { infoText } from './info-text.ts';
import { parseDiskSize, parseRate } from './numbers.ts';
import { say, sayJson, tableText } from './output.ts';

const BASE_HELP = `
With --base the disk begins as the disk in that image: at once, and without a copy. What is never
written is read from there ever after, so the image must stay where it is, and must not change: it is
opened only to be read, and the volume does not open when the image is of another size or holds
something else at places that are looked at. Not all of it is compared. What a qcow2 image is based on
itself has to stay as well. Formats are as \`varve import --help\` has them: without --base-format
the file is taken byte for byte, and one that begins as a qcow2 image is refused.
\`varve flatten\` makes the volume independent of it.`;

interface CreateFlags {
  readonly size?: string;
  readonly base?: string;
  readonly baseFormat?: ImageFormat | 'auto';
  readonly logSize?: string;
  readonly ringSize?: string;
  readonly log?: string;
  readonly final?: string;
}

function addCreate(program: Command, setup: Setup): void {
  const command = program
    .command('create <name>')
    .description('make a volume: a blank one, or one that begins as an image is')
    .option('--size <size>', 'size of the disk, such as 10G (default: that of the base)')
    .option('--base <file>', 'an image that is read where the disk was never written; see below')
    .addOption(
      new Option('--base-format <format>', 'of the base').choices(['raw', 'qcow2', 'auto']),
    )
    .option('--log-size <size>', 'size of the log (default: that of the disk, 256M to 4G)')
    .option('--ring-size <size>', 'size of the ring in RAM (default: 64M)')
    .option('--log <path>', 'keep the log in this new file or blank raw block device')
    .option('--final <path>', 'keep final storage in this new file or blank raw block device');
  shared(command, [
    'varve create disk --size 10G',
    'varve create db --size 200G --log-size 32G --log /dev/nvme0n1p3 --final /dev/sdb',
    'varve create web --base debian-12.qcow2 --base-format qcow2 --size 20G',
  ])
    .addHelpText('after', BASE_HELP)
    .action((name: string, flags: CreateFlags) => create(setup, command, name, flags));
}

async function create(
  setup: Setup,
  command: Command,
  name: string,
  flags: CreateFlags,
): Promise<void> {
  const { size, logSize, ringSize, log, final, base } = flags;
  if (size === undefined && base === undefined) {
    throw new VarveError('USAGE', 'give --size, or a --base that has one');
  }
  if (base === undefined && flags.baseFormat !== undefined) {
    throw new VarveError('USAGE', '--base-format is of a --base, which is missing');
  }
  const context = await contextOf(command, setup);
  const basePath = base === undefined ? undefined : resolve(base);
  const options = {
    size: size === undefined ? undefined : parseDiskSize(size),
    basePath,
    baseFormat:
      basePath === undefined
        ? undefined
        : await imageFormatOf(context, basePath, {
            format: flags.baseFormat,
            option: '--base-format',
          }),
    logSize: logSize === undefined ? undefined : parseSize(logSize),
    ringSize: ringSize === undefined ? undefined : parseSize(ringSize),
    logPath: log === undefined ? undefined : resolve(log),
    finalPath: final === undefined ? undefined : resolve(final),
  };
  const made = await context.withOperator((operator) =>
    context.withProgress(`making ${name}`, (progress) => operator.create(name, options, progress)),
  );
  if (context.isJson) return sayJson(made);
  say(`made ${name}: ${sizeText(made.size)}, log ${sizeText(made.logSize)}, in ${made.log}`);
  if (made.base !== undefined) say(`based on ${made.base}, which has to stay as it is`);
}

function addList(program: Command, setup: Setup): void {
  const command = program.command('list').description('name the volumes of the directory');
  shared(command, ['varve list', 'varve list --json']).action(async () => {
    const context = await contextOf(command, setup);
    const all = await context.withOperator((operator) => operator.list());
    if (all.length === 0 && !(await context.directory.exists())) {
      const next = 'check --dir and $VARVE_DIR; `varve create` makes the directory of its volume';
      throw new VarveError('FILE_BAD', `there is no directory ${context.directory.path}`, { next });
    }
    if (context.isJson) return sayJson(all);
    if (all.length === 0) return say(`no volumes in ${context.directory.path}`);
    const isAnyBased = all.some(({ base }) => base !== undefined);
    const usable = all.filter(({ uuid }) => uuid !== '');
    const rows = usable.map(({ name, size, logSize, writeMode, createdAt, base }) => [
      name,
      sizeText(size),
      sizeText(logSize),
      writeMode,
      createdAt,
      ...(isAnyBased ? [base ?? ''] : []),
    ]);
    const columns = [
      { head: 'NAME' },
      { head: 'SIZE', align: 'right' },
      { head: 'LOG', align: 'right' },
      { head: 'WRITE MODE' },
      { head: 'CREATED' },
      ...(isAnyBased ? [{ head: 'BASED ON' }] : []),
    ] as const;
    if (rows.length > 0) say(await tableText(columns, rows));
    for (const { name, failure } of all) {
      if (failure !== undefined) say(`FAILED  ${name}: ${failure}`);
    }
  });
}

function addInfo(program: Command, setup: Setup): void {
  const command = program
    .command('info <name>')
    .description('show the window, fill levels, snapshots and counters of a volume');
  shared(command, ['varve info disk', 'varve info disk --json']).action(async (name: string) => {
    const context = await contextOf(command, setup);
    const info = await context.withOperator((operator) => operator.info(name));
    if (context.isJson) return sayJson({ name, ...info });
    say(await infoText(name, info));
  });
}

function addMode(program: Command, setup: Setup): void {
  const command = program
    .command('mode <name> <mode>')
    .description('set when a write is acknowledged: back, written or through')
    .addHelpText(
      'after',
      '\n  back     from RAM, durable after a flush (as with every disk cache)' +
        '\n  written  when the system has it: survives the end of the server, not of the machine' +
        '\n  through  when it is durable',
    );
  shared(command, ['varve mode disk through']).action(async (name: string, text: string) => {
    const mode = parseMode(text);
    const context = await contextOf(command, setup);
    const summary = await context.withOperator((operator) => operator.setWriteMode(name, mode));
    if (context.isJson) return sayJson(summary);
    say(`${name}: write mode ${summary.writeMode}`);
  });
}

function addCheck(program: Command, setup: Setup): void {
  const command = program
    .command('check <name>')
    .description('verify a whole volume that is not being served; exit 1 when it is damaged');
  shared(command, ['varve check disk']).action(async (name: string) => {
    const context = await contextOf(command, setup);
    const report = await context.withOperator((operator) =>
      context.withProgress(`checking ${name}`, (progress) => operator.check(name, progress)),
    );
    if (!report.ok) setup.setStatus(1);
    if (context.isJson) return sayJson({ name, ...report });
    for (const line of report.checked) say(`checked  ${line}`);
    for (const line of report.problems) say(`PROBLEM  ${line}`);
    say(report.ok ? `${name} is whole` : `${name} is damaged: ${report.problems.length} problems`);
  });
}

/** Bytes a second that a scrub reads: a fraction of what any disk gives. */
const RATE_DEFAULT = '64M';

function damageText(damage: Damage): string {
  const { what, block, offset, generation, wallUs, seenBy, repairedFrom } = damage;
  const at = block === undefined ? '' : ` (byte ${offset ?? 0} of the disk)`;
  const when = wallUs === undefined ? 'from before the window' : `of ${timeText(wallUs)}`;
  const version = generation === undefined || block === undefined ? '' : `, ${when}`;
  if (repairedFrom !== undefined) return `repaired  ${what}${at}${version}; from ${repairedFrom}`;
  return `DAMAGED   ${what}${at}${version}${seenBy === undefined ? '' : `; ${seenText(seenBy)}`}`;
}

function seenText({ live, from, to, snapshots, snapshotsMore }: SeenBy): string {
  const names = snapshots.length === 0 ? [] : [`snapshots ${snapshots.join(', ')}`];
  if (snapshotsMore > 0) names.push(`${snapshotsMore} more snapshots`);
  const moments = `moments gen=${from} to gen=${to}`;
  return `seen by ${[...(live ? ['the live disk'] : []), moments, ...names].join(', ')}`;
}

function addScrub(program: Command, setup: Setup): void {
  const command = program
    .command('scrub <name>')
    .description(
      'verify a whole volume, served or not, and repair what another copy still has; ' +
        'exit 1 when something is left damaged',
    )
    .option(
      '--rate <size>',
      'bytes to read a second, so that clients come first; 0: no limit',
      RATE_DEFAULT,
    );
  shared(command, ['varve scrub disk', 'varve scrub disk --rate 0 --json']).action(
    async (name: string, { rate }: { readonly rate: string }) => {
      const bytesPerSecond = parseRate(rate);
      const context = await contextOf(command, setup);
      const report = await context.withOperator((operator) =>
        context.withProgress(`scrubbing ${name}`, (progress) =>
          operator.scrub(name, { bytesPerSecond }, progress),
        ),
      );
      if (!report.ok) setup.setStatus(1);
      if (context.isJson) return sayJson({ name, ...report });
      for (const line of report.checked) say(`checked   ${line}`);
      for (const damage of report.damages) say(damageText(damage));
      const more = report.repaired + report.left - report.damages.length;
      if (more > 0) say(`and ${more} more`);
      const took = `${sizeText(report.bytesRead)} read in ${(report.tookMs / 1000).toFixed(1)} s`;
      say(`${name}: ${report.repaired} repaired, ${report.left} left damaged; ${took}`);
    },
  );
}

export function addVolumeCommands(program: Command, setup: Setup): void {
  addCreate(program, setup);
  addList(program, setup);
  addInfo(program, setup);
  addMode(program, setup);
  addCheck(program, setup);
  addScrub(program, setup);
}
