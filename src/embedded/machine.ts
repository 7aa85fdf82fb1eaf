/**
 * What an embedded guest stands on: memory, a connection to its device, and the loop that serves both. It may be there before
 * the guest is, for one that is on its way.
 */
import type { GuestResumeOptions } from '../guest/kernel-options.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { defined } from '../sys/defined.ts';
import { AerostatError, assert } from '../sys/error.ts';
import { monotonicMs, Reactor } from '../sys/poll.ts';
import { VhostUserFrontend } from '../vhost-user/frontend-session.ts';
import { createSharedMemory } from '../vhost-user/shared-memory.ts';
import { type EmbeddedGuestOptions, GUEST_BYTES_MIN, type MachineParts } from './options.ts';

export interface EmbeddedMachine {
  readonly reactor: Reactor;
  /** The reactor's run. */
  readonly running: Promise<void>;
  readonly memory: GuestMemory;
  readonly transport: VhostUserFrontend;
  /** Where another device is found if this one is lost. */
  readonly target: string | undefined;
}

export async function connectMachine(
  options: EmbeddedGuestOptions,
  parts: MachineParts,
): Promise<EmbeddedMachine> {
  const target = parts.socket ?? options.socketPath;
  assert(target !== undefined, 'a guest without a device');
  const memory = parts.memory ?? createMemory(options);
  const reactor = new Reactor(parts.wake);
  // Not before the first question is asked: until there is something to wait for, waiting has no end.
  const running = new Promise(resolve => setImmediate(resolve)).then(() => reactor.run());
  try {
    const reconnects = parts.socket === undefined;
    const transport = await VhostUserFrontend.connect(target, { reactor, memory, reconnects });
    return { reactor, running, memory, transport, target: options.socketPath };
  } catch (error) {
    await switchOff({ reactor, running, memory });
    throw error;
  }
}

export async function switchOff({
  transport,
  reactor,
  running,
  memory,
}: Pick<EmbeddedMachine, 'reactor' | 'running' | 'memory'> & Partial<EmbeddedMachine>): Promise<void> {
  transport?.close();
  reactor.stop();
  await running;
  reactor.close();
  memory.close();
}

function createMemory({
  memoryBytes,
  hugePageSize,
  adviseHugePages = false,
}: EmbeddedGuestOptions): GuestMemory {
  checkSize(memoryBytes, hugePageSize ?? PAGE_SIZE);
  return createSharedMemory({
    regions: [{ guestAddress: 0, size: memoryBytes }],
    adviseHugePages,
    ...defined({ hugePageSize }),
  });
}

/** What booted and restored guests are given alike. */
export function surroundingsOf(
  { memory }: EmbeddedMachine,
  { onEvent = () => {} }: EmbeddedGuestOptions,
  { writeLog, pages }: MachineParts,
): GuestResumeOptions {
  return {
    memory,
    clock: { now: monotonicMs },
    ...defined({ writeLog, pages }),
    warn: once(message => onEvent('log', message)),
  };
}

export function checkSize(bytes: number, unit: number): void {
  if (Number.isInteger(bytes / unit) && bytes >= GUEST_BYTES_MIN) return;
  throw new AerostatError(
    'AEROSTAT_GUEST_OPTIONS',
    `a guest cannot have ${bytes} bytes; give it a multiple of ${unit}, ${GUEST_BYTES_MIN} at least`,
  );
}

/** The same line is said again after this long; a guest without memory would say it thousands of times. */
const REPEAT_MS = 10_000;

function once(say: (message: string) => void): (message: string) => void {
  const saidMs = new Map<string, number>();
  return message => {
    const now = monotonicMs();
    if (now - (saidMs.get(message) ?? Number.NEGATIVE_INFINITY) < REPEAT_MS) return;
    saidMs.set(message, now);
    say(message);
  };
}
