/**
 * The network of one simulated machine: its servers' ends of connections end with its lives, the
 * clients are outside, or in the machine too.
 */
import { assert } from '../../src/base/assert.ts';
import type { Latency } from './medium.ts';
import type { Loss, PoweredPart, PowerSupply } from './power-supply.ts';
import {
  SimSocket,
  PIECE_BYTES_MAX,
  type NetworkCounters,
  type PairOptions,
  type Wire,
} from './sim-socket.ts';
import type { SimWorld } from './sim-world.ts';

const LATENCY: Latency = { usMin: 5, usMax: 300 };
const CAPACITY_BYTES = 65_536;

export interface NetworkOptions {
  /** Whose lives the server ends belong to. Without it they never lose power. */
  readonly power?: PowerSupply;
  /** The client ends live and die with the machine too. */
  readonly clientsInside?: boolean;
}

export class SimNetwork implements PoweredPart {
  readonly world: SimWorld;
  readonly counters: NetworkCounters = { pairs: 0, bytes: 0, pieces: 0, ends: 0, resets: 0 };
  readonly #power: PowerSupply | undefined;
  readonly #clientsInside: boolean;
  /** Ends that a loss of power concerns. */
  readonly #powered = new Set<SimSocket>();

  constructor(world: SimWorld, { power, clientsInside = false }: NetworkOptions = {}) {
    this.world = world;
    this.#power = power;
    this.#clientsInside = clientsInside;
    power?.add(this);
  }

  /** A new connection; its ends belong to the machine's current life. */
  pair(options: PairOptions = {}): { readonly server: SimSocket; readonly client: SimSocket } {
    this.counters.pairs += 1;
    const id = this.counters.pairs;
    // A network of the next life, or of another machine, draws other numbers.
    const random = this.world.fork(`wire ${id} of ${this.world.steps}`);
    const wire: Wire = {
      world: this.world,
      counters: this.counters,
      random,
      latency: options.latency ?? LATENCY,
      capacity: options.capacity ?? CAPACITY_BYTES,
      bytesLeft: options.resetAfterBytes ?? Infinity,
      onGone: (end) => {
        this.#powered.delete(end);
      },
    };
    assert(wire.capacity > 0, 'something fits between two ends');
    const { pieceBytes = () => PIECE_BYTES_MAX, ...rest } = options;
    const server = new SimSocket(
      wire,
      { ...rest, pieceBytes },
      { id: 2 * id, name: `server end ${id}`, isMute: this.#mute(true) },
    );
    const client = new SimSocket(wire, rest, {
      id: 2 * id + 1,
      name: `client end ${id}`,
      isMute: this.#mute(this.#clientsInside),
    });
    server.join(client);
    client.join(server);
    if (this.#power !== undefined) this.#powered.add(server);
    if (this.#power !== undefined && this.#clientsInside) this.#powered.add(client);
    return { server, client };
  }

  /** As a disk's handle of an ended life: it hangs, or is told. */
  #mute(isInside: boolean): () => boolean {
    const power = isInside ? this.#power : undefined;
    if (power === undefined || power.afterLoss === 'reject') return () => false;
    const { life } = power;
    return () => !life.alive;
  }

  lose(loss: Loss): void {
    for (const end of this.#powered) end.lose(loss);
    this.#powered.clear();
  }
}
