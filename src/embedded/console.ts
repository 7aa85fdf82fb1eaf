/**
 * A guest's console: commands come in and answers go out, a JSON object a line. Commands may overlap; an answer carries
 * the number of its command.
 *
 *     → {"id":1,"do":"use","bytes":1048576}
 *     ← {"id":1,"answer":{"usedBytes":1048576}}
 *     → {"id":2,"do":"fly"}
 *     ← {"id":2,"error":{"code":"AEROSTAT_GUEST_COMMAND","message":"…"}}
 *     ← {"event":"disconnected","message":"…"}
 */
import { wireError } from '../sys/error.ts';
import { execute } from './answers.ts';
import { CommandError, parseCommand } from './commands.ts';
import type { EmbeddedGuest } from './embedded-guest.ts';
import type { GuestEventName } from './options.ts';

/** What a guest says on its console. `id` is null where the command had none. */
export type ConsoleMessage =
  | { readonly id: number | null; readonly answer: unknown }
  | { readonly id: number | null; readonly error: { readonly code: string; readonly message: string } }
  | { readonly event: GuestEventName; readonly message: string };

/** Carries out one line of JSON; resolves with what is to be said. Never rejects. */
export async function answerLine(machine: EmbeddedGuest, line: string): Promise<ConsoleMessage> {
  let id: number | null = null;
  try {
    const value = parseJson(line);
    id = idOf(value);
    return { id, answer: await execute(machine, parseCommand(value)) };
  } catch (error) {
    return { id, error: wireError(error) };
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw new CommandError('no command of a guest: it is not JSON');
  }
}

function idOf(value: unknown): number | null {
  if (typeof value !== 'object' || value === null || !('id' in value)) return null;
  return typeof value.id === 'number' ? value.id : null;
}
