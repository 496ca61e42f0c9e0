/** What a volume tells of itself, for people. */
import { sizeText } from '../control/size-text.ts';
import { timeText } from '../volume/moment.ts';
import type {
  Fill,
  PointInTime,
  RollbackInfo,
  SnapshotInfo,
  VolumeInfo,
} from '../volume/report.ts';
import { tableText } from './output.ts';
import { retentionLines } from './retention-text.ts';

function pointText({ generation, wallUs }: PointInTime): string {
  return `generation ${generation}, ${timeText(wallUs)}`;
}

function fillText({ usedBytes, sizeBytes }: Fill): string {
  const percent = sizeBytes === 0 ? 0 : (usedBytes / sizeBytes) * 100;
  return `${sizeText(usedBytes)} of ${sizeText(sizeBytes)} (${percent.toFixed(1)} %)`;
}

/** When the volume will refuse writes, and why; nothing when it will not. */
function limitLines(info: VolumeInfo): readonly (readonly [string, string])[] {
  const lines: (readonly [string, string])[] = [];
  const { failure, logFault, counters } = info;
  if (failure !== undefined) lines.push([info.readOnly ? 'read-only because' : 'failing', failure]);
  if (logFault !== undefined) lines.push(['log faults', `${counters.logFaults}; ${logFault}`]);
  return lines;
}

/** What reads met since the volume was opened, and what became of it. */
function damageText({ readErrors, readRescues, repairs }: VolumeInfo['counters']): string {
  if (readErrors === 0 && repairs === 0) return 'none met';
  return (
    `${readErrors} damaged blocks read, ${readRescues} of them answered from another copy; ` +
    `${repairs} copies repaired`
  );
}

function receiveLines({ received, unfinished }: VolumeInfo['receive']): [string, string][] {
  const lines: [string, string][] = [];
  if (received !== undefined) {
    const { volume, generation, wallUs, isUnchanged } = received;
    const since = isUnchanged ? 'nothing written since' : 'written since';
    const what = `generation ${generation} of ${volume}, ${timeText(wallUs)}`;
    lines.push(['received', `${what}; ${since}`]);
  }
  if (unfinished !== undefined) {
    const { volume, generation, records, isAborted } = unfinished;
    const how = isAborted ? 'being given up' : `unfinished, ${records} records are here`;
    lines.push(['receiving', `generation ${generation} of ${volume}: ${how}`]);
  }
  return lines;
}

export async function infoText(name: string, info: VolumeInfo): Promise<string> {
  const { counters, recovery } = info;
  const end = recovery.clean ? 'an orderly end' : 'an unclean end';
  const rows: (readonly [string, string])[] = [
    ['volume', `${name}, ${sizeText(info.size)}, ${info.uuid}`],
    ...(info.base === undefined ? [] : [['based on', info.base] as const]),
    ['lineage', info.lineage],
    ['window from', pointText(info.horizon)],
    ['window to', pointText(info.head)],
    ['durable', pointText(info.durable)],
    ['settled', pointText(info.settled)],
    ['write mode', info.writeMode],
    ['uncommitted', sizeText(info.uncommittedBytes)],
    ['ring', fillText(info.ring)],
    ['log', fillText(info.log)],
    ['final storage', fillText(info.final)],
    ['undo', fillText(info.undo)],
    ...retentionLines(info.retention),
    ...limitLines(info),
    ...receiveLines(info.receive),
    ['index', `${info.versions} versions, ${sizeText(info.indexBytes)}`],
    ['open moments', String(info.openMoments)],
    ['live sessions', String(info.liveSessions)],
    ['reads', `${counters.reads}, ${sizeText(counters.readBytes)}`],
    ['damage', damageText(counters)],
    ['writes', `${counters.writes}, ${sizeText(counters.writeBytes)}`],
    ['trims, zeroes', `${counters.trims}, ${counters.zeroes}`],
    ['flushes', `${counters.flushes}; ${counters.logSyncs} syncs of the log`],
    ['rounds', `${counters.rounds}; ${counters.settledBlocks} blocks settled`],
    [
      'opened after',
      `${end}: ${recovery.requests} requests replayed in ${recovery.tookMs.toFixed(0)} ms`,
    ],
  ];
  if (recovery.cut !== undefined) {
    const { generation, unkept } = recovery.cut;
    rows.push(['torn tail cut', `after generation ${generation}`]);
    if (unkept !== undefined) rows.push(['not kept aside', unkept]);
  }
  const width = Math.max(...rows.map(([label]) => label.length));
  const lines = rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`);
  if (info.snapshots.length > 0) lines.push('', await snapshotTable(info.snapshots));
  if (info.marks.length > 0) {
    lines.push('', 'marks:');
    for (const { label, generation, wallUs } of info.marks) {
      lines.push(`  ${label}  ${pointText({ generation, wallUs })}`);
    }
  }
  if (info.rollbacks.length > 0) {
    lines.push('', 'rollbacks:', ...info.rollbacks.map((one) => `  ${rollbackText(name, one)}`));
  }
  return lines.join('\n');
}

/** One line of a rollback, wherever it is met. */
export function rollbackText(name: string, rollback: RollbackInfo): string {
  const { target, before, after, wallUs, failure } = rollback;
  const what = `${timeText(wallUs)}  ${name}@gen=${target} came back; before: ${name}@gen=${before}`;
  if (after !== undefined) return `${what}, after: ${name}@gen=${after}`;
  return `${what}; NOT ENDED: ${failure ?? 'it goes on when the volume is opened for writing'}`;
}

export function snapshotTable(snapshots: readonly SnapshotInfo[]): Promise<string> {
  const columns = [
    { head: 'SNAPSHOT' },
    { head: 'GENERATION', align: 'right' },
    { head: 'MOMENT' },
    { head: 'MADE' },
    { head: 'HOLDS', align: 'right' },
    { head: 'SHARES', align: 'right' },
    { head: 'KEPT FOR' },
  ] as const;
  const rows = snapshots.map((snapshot) => [
    snapshot.label,
    String(snapshot.generation),
    timeText(snapshot.momentWallUs),
    timeText(snapshot.createdWallUs),
    sizeText(snapshot.exclusiveBytes),
    sizeText(snapshot.sharedBytes),
    snapshot.isAutomatic ? snapshot.keptFor.join(', ') || 'nothing any more' : 'you',
  ]);
  return tableText(columns, rows);
}
