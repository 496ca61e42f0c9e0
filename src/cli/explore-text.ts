/** An exploration's report for people. */
import type { ExploreReport, Finding, ToldRequest } from '../control/explore-report.ts';
import { timeText } from '../volume/moment.ts';

const SHOWN_MAX = 12;
const OUTPUT_LINES_MAX = 6;

function requestLine({ generation, wallUs, fua, ranges }: ToldRequest): string {
  const shown = ranges
    .slice(0, 4)
    .map(({ kind, offset, length }) => `${kind} of ${length} bytes at ${offset}`);
  const more = ranges.length > shown.length ? `, and ${ranges.length - shown.length} more` : '';
  const marks = fua ? ', FUA' : '';
  return `generation ${generation}, ${timeText(wallUs)}${marks}: ${shown.join(', ')}${more}`;
}

function requestLines(requests: readonly ToldRequest[], indent: string): readonly string[] {
  const lines = requests.slice(0, SHOWN_MAX).map((request) => indent + requestLine(request));
  const more = requests.length - SHOWN_MAX;
  return more > 0 ? [...lines, `${indent}and ${more} more (--json has all)`] : lines;
}

function headOf({ kind, flushed, through }: Finding): string {
  const since = `everything up to generation ${flushed} is there`;
  switch (kind) {
    case 'missing':
      return `${since}; of what came since, some is missing:`;
    case 'prefix':
      return `nothing is missing: the disk is bad as soon as this is there:`;
    case 'order':
      return `${since}, and what came since up to ${through}, but an older write won:`;
    case 'torn':
      return `${since}, and what came since up to ${through}, but the last write is torn:`;
    case 'unstable':
      return `the check failed, and passed on the same disk when it was run again:`;
    case 'unminimised':
      return `${since}; not reduced, because it ended before:`;
  }
}

function outcome({ verdict }: Finding): string {
  if (verdict.isLate) return 'did not end in time';
  return verdict.exitCode === undefined ? 'was ended by a signal' : `exit code ${verdict.exitCode}`;
}

function findingLines(finding: Finding, at: number): readonly string[] {
  const { missing, present, sectors, last, states, verdict, through, flushed } = finding;
  const lines = [`${at + 1}. ${headOf(finding)}`];
  if (missing.length > 0) lines.push('   missing', ...requestLines(missing, '     '));
  const isPrefix = finding.kind === 'prefix';
  if (present.length > 0) {
    const alone = isPrefix ? '   there' : '   there (these alone are enough)';
    lines.push(alone, ...requestLines(present, '     '));
  }
  if (sectors !== undefined) {
    lines.push(`   of it the sectors of 512 bytes from ${sectors.from} to ${sectors.to - 1}`);
  }
  if (last !== undefined) lines.push('   reached the disk last', ...requestLines([last], '     '));
  const window = isPrefix ? '' : `; cut between generations ${flushed} and ${through}`;
  lines.push(`   ${outcome(finding)}, in ${states} of the states${window}`);
  const output = verdict.output.trim();
  const said = output === '' ? [] : output.split('\n').slice(-OUTPUT_LINES_MAX);
  return [...lines, ...said.map((line) => `   | ${line}`)];
}

export function reportText(name: string, report: ExploreReport): string {
  const { from, to, requests, flushes, allowed, planned, checked, failed } = report;
  const lines = [
    `${name}: ${requests} requests and ${flushes} flushes ` +
      `after generation ${from}, up to ${to}`,
  ];
  const seconds = (report.tookMs / 1000).toFixed(1);
  const rate = report.statesPerSecond.toFixed(1);
  lines.push(
    `${checked} of ${planned} states were checked, ${failed} fail; with ${report.checksMore} more ` +
      `checks in ${seconds} s, ${rate} states a second`,
  );
  if (report.isComplete) lines.push('these are all that whole requests can leave');
  else {
    const most = allowed === undefined ? 'more than 2^53' : String(allowed);
    lines.push(`chosen by seed ${report.seed} among ${most} sets of whole requests`);
  }
  if (report.isInterrupted) lines.push('INTERRUPTED: the rest was not looked at');
  for (const [at, finding] of report.findings.entries()) {
    lines.push('', ...findingLines(finding, at));
  }
  if (report.unexplained > 0) {
    lines.push('', `${report.unexplained} more failing states were not looked into`);
  }
  if (failed === 0) lines.push('the check fails in none of them');
  return lines.join('\n');
}
