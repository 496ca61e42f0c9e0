/**
 * One channel of a server's control socket: requests in order, one at a time.
 *
 * Invariants:
 *   - What the peer sends never ends more than its own request; a bug of ours still ends the server.
 *   - One request is worked on at a time, and answered before the next is read: what a peer can
 *     hold is bounded.
 */
import { VarveError, isVarveError } from '../base/errors.ts';
import type { World } from '../base/world.ts';
import type { ControlChannel } from './control-channel.ts';
import { decodeRequest, type Desk } from './control-protocol.ts';
import { ShapeError } from './shape.ts';

const PROGRESS_US_MIN = 100_000;

/** An answer to a request that could not even be numbered. */
const ID_UNKNOWN = 0;

function errorOf(error: unknown): VarveError {
  if (isVarveError(error)) return error;
  if (error instanceof ShapeError) return new VarveError('USAGE', error.message);
  throw error;
}

async function answer(
  channel: ControlChannel,
  line: string,
  { desk, world }: { readonly desk: Desk; readonly world: World },
): Promise<void> {
  let id = ID_UNKNOWN;
  try {
    const request = decodeRequest(line);
    id = request.id;
    let toldUs = world.clock.monotonicUs();
    let sending: Promise<void> = Promise.resolve();
    const result = await request.run(desk, (done, total) => {
      if (!channel.isOpen) throw new VarveError('CLOSED', 'who asked for it has gone');
      const nowUs = world.clock.monotonicUs();
      if (nowUs - toldUs < PROGRESS_US_MIN) return;
      toldUs = nowUs;
      sending = channel.send({ id, progress: { done: Math.floor(done), total: Math.ceil(total) } });
    });
    await sending;
    await channel.send({ id, result: result ?? null });
  } catch (error) {
    const { code, detail, next } = errorOf(error);
    await channel.send({ id, error: { code, detail, next } });
  }
}

/** Serves the channel until its peer ends. */
export async function serveControl(
  channel: ControlChannel,
  around: { readonly desk: Desk; readonly world: World },
): Promise<void> {
  for await (const line of channel.lines()) {
    switch (line.kind) {
      case 'text':
        await answer(channel, line.text, around);
        break;
      case 'bad':
        await channel.send({ id: ID_UNKNOWN, error: { code: 'USAGE', detail: line.why } });
        break;
    }
  }
}
