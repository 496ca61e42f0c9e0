/** The port to a local stream of lines, which carries the control protocol. */
import type { Line } from './control-lines.ts';

export interface ControlChannel {
  /** What the peer says, in order; ends when the peer ends or the channel is closed. */
  lines(): AsyncIterable<Line>;
  /** Sends one line; settles when there is room for another. */
  send(value: unknown): Promise<void>;
  close(): void;
  /** False once the peer has gone: what is done for it alone can end. */
  readonly isOpen: boolean;
}

export interface ControlListener {
  /** Takes no more channels, and ends those that are open. */
  close(): Promise<void>;
}

export interface ControlDoor {
  /**
   * Listens with mode 0600; what an earlier server left at `path` is replaced, so the caller holds
   * the directory's lock.
   * @param accept - what to do with a channel; when it settles, the channel is closed
   * @throws VarveError ADDRESS_IN_USE, ADDRESS_BAD, PERMISSION
   */
  listen(
    path: string,
    accept: (channel: ControlChannel) => Promise<void>,
  ): Promise<ControlListener>;
  /** Undefined when nobody listens there. */
  connect(path: string): Promise<ControlChannel | undefined>;
}
