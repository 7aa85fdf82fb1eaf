/**
 * The wait for a guest that boots, with words for one that does not. What starts it is not known here.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandChannel } from './channel.ts';
import { GuestBootError, GuestEndedError } from './errors.ts';

/**
 * Settles when the guest takes commands on `channel`; `consoleTail` tells what its kernel wrote.
 * @throws GuestBootError when it ends before that, or takes longer than `timeoutMs`
 */
export async function bootedInTime(
  channel: CommandChannel,
  timeoutMs: number,
  consoleTail: () => string,
): Promise<void> {
  const timeout = new AbortController();
  const late = delay(timeoutMs, true, { signal: timeout.signal }).catch(() => false);
  try {
    const isLate = await Promise.race([channel.ready.then(() => false), late]);
    if (isLate) throw new GuestBootError(`the guest did not boot in ${timeoutMs} ms`, consoleTail());
  } catch (cause) {
    if (!(cause instanceof GuestEndedError)) throw cause;
    const [why] = cause.message.split('\n');
    throw new GuestBootError(`the guest did not boot: ${why}`, consoleTail(), { cause });
  } finally {
    timeout.abort();
  }
}
