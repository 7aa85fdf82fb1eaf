/** How a hosted guest answers the operations that its data-plane thread is asked for: one handler each. */
import type { DeviceGuestStatus } from '../control/contract.ts';
import { HINT_LIMIT_MS, REQUEST_TIMEOUT_MS, STATISTICS_TIMEOUT_MS } from '../control/limits.ts';
import type { AnswerOf, ArgsOf, ThreadOperation } from '../control/operations.ts';
import type { GuestHost } from './guest-host.ts';

type Answer<Name extends ThreadOperation> = AnswerOf<Name, DeviceGuestStatus>;

type Handlers = {
  [Name in ThreadOperation]: (guest: GuestHost, args: ArgsOf<Name>) => Answer<Name> | Promise<Answer<Name>>;
};

export const guestOperations: Handlers = {
  guest: guest => guest.status(),
  /** All of it, or nothing. */
  change: (guest, changes) => {
    const { target, device, statistics } = guest;
    target.check(changes);
    const { targetBytes, memoryBytes, discard, pollIntervalMs, lease } = changes;
    // The target last, so that the change that it starts goes by the new way of discarding.
    if (discard !== undefined) device.inflation.mode = discard;
    if (pollIntervalMs !== undefined) statistics.intervalMs = pollIntervalMs;
    if (targetBytes !== undefined || memoryBytes !== undefined) target.lease.ordered(lease);
    if (targetBytes !== undefined) target.set(targetBytes);
    if (memoryBytes !== undefined) target.keep(memoryBytes);
    guest.keeping?.guest.noteDevice();
    return guest.status();
  },
  statistics: (guest, { freshMs, timeoutMs = STATISTICS_TIMEOUT_MS }) =>
    guest.statistics.fresh(freshMs ?? null, timeoutMs),
  hintStatus: guest => guest.hints.status,
  hint: (guest, { action, limitMs = HINT_LIMIT_MS }) => guest.hints.order(action, limitMs),
  request: (guest, { request, timeoutMs = REQUEST_TIMEOUT_MS }) => guest.request(request, timeoutMs),
};
