/**
 * The wait for a guest that boots, with words for one that does not. What starts it is not known here.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandChannel } from './channel.ts';
import { GuestBootError, GuestEndedError, hostAdvice, panicLine, panicReason } from './errors.ts';

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
    throw new GuestBootError(`the guest did not boot: ${whyNot(cause, consoleTail())}`, consoleTail(), {
      cause,
    });
  } finally {
    timeout.abort();
  }
}

/** One sentence; the console, which may be long, is told with the cause. */
function whyNot(cause: GuestEndedError, console: string): string {
  const panic = panicLine(console);
  if (panic === undefined || hostAdvice(console) !== undefined) return cause.message.split('\n')[0];
  return `its kernel panicked (${panicReason(panic)}); \`aerostat peers\` shows which kernels can run here`;
}
