/** What clients are refused is told to whoever runs the server, in few and harmless lines. */
import { expect, test } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { ToldRefusals } from '../../src/control/told-refusals.ts';
import { SimWorld } from '../sim/sim-world.ts';

test('refusals are told, each once in a while, and never without bound', async () => {
  const world = new SimWorld(1);
  await world.run(async () => {
    const lines: string[] = [];
    const refusing = {
      list: () => Promise.resolve([]),
      open: (name: string) => Promise.reject(new VarveError('MOMENT_OUTSIDE', `of "${name}"`)),
    };
    const told = new ToldRefusals(refusing, world.clock, (line) => lines.push(line));
    const ask = (name: string): Promise<void> =>
      expect(told.open(name)).rejects.toMatchObject({ code: 'MOMENT_OUTSIDE' });
    for (let i = 0; i < 3; i++) await ask('disk@-10m');
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^refused a client "disk@-10m": MOMENT_OUTSIDE: .*of "disk@-10m"$/);
    await ask('\u001b[2Jgone');
    expect(lines[1]).toContain('"?[2Jgone"');
    for (let i = 0; i < 100; i++) await ask(`disk@gen=${i}`);
    expect(lines).toHaveLength(8);
    await world.sleep(11_000_000);
    await ask('x'.repeat(4096));
    expect(lines).toHaveLength(9);
    expect(lines[8]?.length).toBe(400);
  });
});
