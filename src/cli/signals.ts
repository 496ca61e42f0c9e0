/** Work that SIGINT, SIGTERM or the end of the terminal (SIGHUP) ends in order. */
import { once } from 'node:events';

/**
 * There is nothing to hurry with a second signal, unless `onSecond` does: `work` hears of the first
 * and comes to its end.
 */
export async function untilSignal<T>(
  work: (signal: AbortSignal) => Promise<T>,
  onSecond: () => void = () => undefined,
): Promise<T> {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) onSecond();
    else controller.abort();
  };
  // A terminal that is closed is told of by its shell and by the kernel: that is no hurry.
  const onHangup = (): void => {
    controller.abort();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  process.on('SIGHUP', onHangup);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    process.off('SIGHUP', onHangup);
  }
}

/** Settles once the signal was given. */
export async function given(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort');
}
