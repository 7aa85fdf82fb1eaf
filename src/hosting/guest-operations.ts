/** How a hosted guest answers the operations that its data-plane thread is asked for: one handler each. */
import {
  type DeviceGuestStatus,
  HINT_LIMIT_MS,
  REQUEST_TIMEOUT_MS,
  STATISTICS_TIMEOUT_MS,
} from '../control/contract.ts';
import type { AnswerOf, ArgsOf, ThreadOperation } from '../control/operations.ts';
import type { GuestHost } from './guest-host.ts';

type Answer<Name extends ThreadOperation> = AnswerOf<Name, DeviceGuestStatus>;

type Handlers = {
  [Name in ThreadOperation]: (guest: GuestHost, args: ArgsOf<Name>) => Answer<Name> | Promise<Answer<Name>>;
};

const handlers: Handlers = {
  guest: guest => guest.status(),
  change: (guest, changes) => {
    guest.change(changes);
    return guest.status();
  },
  statistics: (guest, { freshMs, timeoutMs = STATISTICS_TIMEOUT_MS }) =>
    guest.statistics(freshMs ?? null, timeoutMs),
  hintStatus: guest => guest.hints.status,
  hint: (guest, { action, limitMs = HINT_LIMIT_MS }) => guest.hints.order(action, limitMs),
  request: (guest, { request, timeoutMs = REQUEST_TIMEOUT_MS }) => guest.request(request, timeoutMs),
};

/** Answers any of them. */
export function answerOperation(
  operation: ThreadOperation,
  guest: GuestHost,
  args: object | undefined,
): unknown {
  return (handlers[operation] as (guest: GuestHost, args: object) => unknown)(guest, args ?? {});
}
