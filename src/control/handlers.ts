/**
 * The handler of any operation of a control, and the refusal where a hypervisor has no means for it. It stands apart from the
 * table of operations because that is the page's, too, and a browser has nothing of Node, which errors need.
 */
import { GuestStateError } from './errors.ts';
import {
  type AnyHandler,
  type AnyHostHandler,
  type GuestSource,
  OPERATIONS,
  type OperationName,
} from './operations.ts';

/** What answers any operation of `control`; those of a host pass over the guest's name. */
export function handlerOf<Asked extends GuestSource>(
  control: Asked,
  operation: OperationName & keyof Asked,
): AnyHandler {
  const handler = (control[operation] as AnyHandler | AnyHostHandler | undefined)?.bind(control);
  if (handler === undefined) return name => refuse(control, operation, name);
  if (OPERATIONS[operation].scope === 'guest') return handler as AnyHandler;
  return (_, args) => (handler as AnyHostHandler)(args);
}

/** @throws UnknownGuestError, GuestStateError */
async function refuse(control: GuestSource, operation: OperationName, guest: string): Promise<never> {
  const { name } = await control.guest(guest);
  throw new GuestStateError(`the hypervisor of ${name} has no means for this (${operation})`);
}
