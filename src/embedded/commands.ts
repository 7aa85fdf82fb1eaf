/**
 * What an embedded guest can be told while it runs, and what it answers: the vocabulary of its console, of tests and of
 * the demonstration. A command is an object with its name in `do`; sizes are bytes. Everything that arrives is checked
 * here, once.
 */
import { z } from 'zod';
import { AerostatError } from '../sys/error.ts';
import { WORKLOAD_KINDS } from './workload-kinds.ts';

const bytes = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const share = z.number().min(0).max(1);

const COMMANDS = [
  /** Writes to that much memory and keeps it. */
  z.object({ do: z.literal('use'), bytes }),
  /** Frees what was used. */
  z.object({ do: z.literal('free') }),
  /** One process has that much from now on; of a file, so much more is read, round and round. */
  z.object({
    do: z.literal('want'),
    bytes,
    fileBytes: bytes.optional(),
    readBytes: bytes.optional(),
  }),
  /** Writes to free memory and frees it again: the host backs it, the guest does not need it. */
  z.object({ do: z.literal('touch'), bytes: bytes.optional() }),
  /** Reads a file of that size through the page cache. */
  z.object({ do: z.literal('cache'), bytes }),
  /** Starts a workload and does not wait for it. */
  z.object({ do: z.literal('start'), workload: z.enum(WORKLOAD_KINDS), bytes: bytes.optional() }),
  /** Ends all workloads. */
  z.object({ do: z.literal('stop') }),
  /** Breaks free memory up. */
  z.object({
    do: z.literal('age'),
    degree: share.refine(degree => degree < 1, 'a degree is below 1'),
    touch: z.boolean().optional(),
    pinned: share.optional(),
    holders: z.number().int().min(1).max(511).optional(),
  }),
  /** Joins free memory again, as far as pages can be moved. */
  z.object({ do: z.literal('compact') }),
  z.object({ do: z.literal('drop-caches') }),
  /** Checks the allocator and the content of every page that was written to. */
  z.object({ do: z.literal('verify') }),
  z.object({ do: z.literal('meminfo') }),
  z.object({ do: z.literal('status') }),
  /** Which pages the balloon holds. */
  z.object({ do: z.literal('balloon') }),
  /** Waits until the newest target is reached. */
  z.object({ do: z.literal('settle') }),
  /** Resets the device and starts it anew. */
  z.object({ do: z.literal('reset') }),
  /** Takes the driver out, and in again. */
  z.object({ do: z.literal('remove') }),
  z.object({ do: z.literal('probe') }),
  /** Switches the guest off. */
  z.object({ do: z.literal('exit') }),
] as const;

const COMMAND = z.discriminatedUnion('do', COMMANDS);

export type GuestCommand = z.output<typeof COMMAND>;
export type CommandName = GuestCommand['do'];
export type CommandOf<Name extends CommandName> = Extract<GuestCommand, { do: Name }>;

export const COMMAND_NAMES: readonly CommandName[] = COMMANDS.map(({ shape }) => shape.do.value);

export class CommandError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_GUEST_COMMAND', message);
  }
}

/** @throws CommandError that says what is wrong with it */
export function parseCommand(value: unknown): GuestCommand {
  const result = COMMAND.safeParse(value);
  if (result.success) return result.data;
  const reasons = result.error.issues.map(({ path, message }) =>
    path.length === 0 ? message : `${path.join('.')}: ${message}`,
  );
  throw new CommandError(`no command of a guest: ${reasons.join('; ')}`);
}

/** Commands that change nothing. The others do not reach a machine that is being saved and sent as it is. */
export const LOOKS: ReadonlySet<CommandName> = new Set<CommandName>([
  'balloon',
  'meminfo',
  'settle',
  'status',
  'verify',
]);
