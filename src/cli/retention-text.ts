/** What retention keeps and will keep, for people. */
import { sizeText } from '../control/size-text.ts';
import { spanText } from './numbers.ts';
import type { Forecast, RetentionInfo, VolumeInfo } from '../volume/report.ts';
import { hasRules, RULES, type RetentionPolicy } from '../volume/retention-policy.ts';

export function policyText(policy: RetentionPolicy): string {
  const parts = RULES.filter((rule) => policy[rule] > 0).map((rule) => `${policy[rule]} ${rule}`);
  if (policy.everyWriteUs > 0) parts.unshift(`every write ${spanText(policy.everyWriteUs)}`);
  if (policy.maxBytes > 0) parts.push(`at most ${sizeText(policy.maxBytes)}`);
  return parts.length === 0 ? 'none' : parts.join(', ');
}

export function windowText({ policy, windowUs, isEveryWriteKept }: RetentionInfo): string {
  const asked = policy.everyWriteUs;
  const window = `${spanText(windowUs)} long`;
  if (asked === 0) return window;
  return isEveryWriteKept ? window : `${window}, SHORTER than the ${spanText(asked)} asked for`;
}

export function forecastText(forecast: Forecast, { everyWriteUs }: RetentionPolicy): string {
  const { bytesPerSecond, overUs, windowUs, logBytesNeeded } = forecast;
  const over = `of the last ${spanText(overUs)}`;
  if (windowUs === undefined) return `nothing was written ${over}: the window stays as it is`;
  const { min, max } = windowUs;
  const rate = `at the ${sizeText(bytesPerSecond)}/s ${over}`;
  const lasts = `${rate} the log covers every write for ${spanText(min)} to ${spanText(max)}`;
  if (everyWriteUs === 0 || min >= everyWriteUs) return lasts;
  const need = `a log of ${sizeText(logBytesNeeded)} would`;
  return `${lasts}: TOO SHORT for ${spanText(everyWriteUs)}, ${need}`;
}

export function heldText(info: RetentionInfo): string {
  const { policy, heldBytes, namedBytes, droppedEarly } = info;
  const limit = policy.maxBytes === 0 ? '' : ` of at most ${sizeText(policy.maxBytes)}`;
  const automatic = sizeText(heldBytes - namedBytes);
  const parts = [`${sizeText(heldBytes)}${limit}, ${automatic} only for automatic snapshots`];
  if (droppedEarly > 0) parts.push(`${droppedEarly} of these went early, for want of space`);
  if (policy.maxBytes > 0 && namedBytes > policy.maxBytes) {
    parts.push('named snapshots and open moments alone are OVER the limit, and stay');
  }
  return parts.join('; ');
}

/** Lines of `varve info`. */
export function retentionLines(info: RetentionInfo): [string, string][] {
  const { policy, forecast, automatic } = info;
  const lines: [string, string][] = [
    ['window', windowText(info)],
    ['forecast', forecastText(forecast, policy)],
    ['retention', `${policyText(policy)}; ${automatic} automatic snapshots`],
    ['held', heldText(info)],
  ];
  return lines;
}

/** What `varve retention NAME` shows. */
export function retentionText(name: string, { retention, snapshots }: VolumeInfo): string {
  const { policy, forecast } = retention;
  const asked = policy.everyWriteUs === 0 ? 'as long as the log covers it' : '';
  const rows: [string, string][] = [
    ['every write', asked === '' ? spanText(policy.everyWriteUs) : asked],
    ...RULES.map((rule): [string, string] => {
      const there = snapshots.filter(({ keptFor }) => keptFor.includes(rule)).length;
      return [rule, policy[rule] === 0 ? 'none' : `${policy[rule]}; ${there} there`];
    }),
    ['max bytes', policy.maxBytes === 0 ? 'no limit' : sizeText(policy.maxBytes)],
    ['window', windowText(retention)],
    ['forecast', forecastText(forecast, policy)],
    ['held', heldText(retention)],
  ];
  const width = Math.max(...rows.map(([label]) => label.length));
  const lines = rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`);
  const wanted = RULES.reduce((sum, rule) => sum + policy[rule], 0);
  if (wanted > retention.automaticMax) {
    const room = `the log of ${name} has room for ${retention.automaticMax} automatic snapshots`;
    lines.push('', `${room}: of the ${wanted} that the rules ask for, the newest are kept`);
  }
  if (hasRules(policy) && retention.automatic === 0) {
    lines.push('', `no moment of ${name} has left the window with the end of an hour yet`);
  }
  return lines.join('\n');
}
