/** The results of trials as text: for a terminal, and as the page docs/MUTANTS.md. */
import { row } from '../../tools/markdown.ts';
import type { Trial, Verdict } from './trial.ts';

/** The sentence that failed, without where in which seed. */
function brief(message: string): string {
  const line = message.replace(/^(\w+: )?(seed -?\d+: )?/, '').split('\n')[0] ?? '';
  return line.replace(/^(AssertionError|Error)( \[\w+\])?: /, '').slice(0, 110);
}

function seconds(value: number): string {
  return value < 10 ? value.toFixed(1) : String(Math.round(value));
}

/** @returns one line for a terminal */
export function line({ mutant, verdict }: Trial): string {
  const head = `${mutant.name} (law ${mutant.law})`;
  switch (verdict.kind) {
    case 'found': {
      const { turn, steps } = verdict;
      const took = `${steps} operations, ${seconds(verdict.seconds)} s`;
      return `found     ${head}: ${turn.fuzzer} seed ${turn.seed}, ${took}: ${brief(verdict.message)}`;
    }
    case 'survived':
      return `SURVIVED  ${head}: ${verdict.steps} operations, ${seconds(verdict.seconds)} s`;
    case 'void':
      return `VOID      ${head}: ${verdict.message}`;
    default:
      return head;
  }
}

function cells(verdict: Verdict): readonly string[] {
  switch (verdict.kind) {
    case 'found': {
      const { turn, steps } = verdict;
      const took = [String(steps), seconds(verdict.seconds)];
      return [`\`${turn.fuzzer}\``, String(turn.seed), ...took, brief(verdict.message)];
    }
    case 'survived':
      return ['not found', '', String(verdict.steps), seconds(verdict.seconds), ''];
    case 'void':
      return ['void', '', '', '', verdict.message];
    default:
      return [];
  }
}

const INTRODUCTION = `# Planted bugs

Printed by \`npm run fuzz:mutants -- --markdown docs/MUTANTS.md\`. Each bug is a small patch of one
source file, such as a programmer might have made, planted alone in a private copy of the built
tree; \`fuzz/mutants/\` has the patches. Then fuzzers run until one fails. What failed is run once
more without the bug, and has to hold: so a bug counts as found only when it made the difference.

Operations are what the fuzzers that looked for it did until then: requests of clients, questions,
cases of a codec. Seconds are of CPU, on one core, shared by those fuzzers. A seed is that of the run
when this page was printed; a fuzzer that has changed since may make another run of it. The last
column is the sentence with which the bug showed itself.
`;

/** The page, before prettier lays it out. */
export function page(trials: readonly Trial[]): string {
  const found = trials.filter(({ verdict }) => verdict.kind === 'found').length;
  const header = ['bug', 'law', 'what was forgotten', 'found by', 'seed', 'operations', 'seconds'];
  const lines = [
    INTRODUCTION,
    `**${found} of ${trials.length} found.**`,
    '',
    row([...header, 'how it shows']),
    row([...header, ''].map(() => '---')),
    ...trials.map(({ mutant, verdict }) => {
      const name = `\`${mutant.name}\``;
      return row([name, String(mutant.law), mutant.story, ...cells(verdict)]);
    }),
  ];
  return `${lines.join('\n')}\n`;
}
