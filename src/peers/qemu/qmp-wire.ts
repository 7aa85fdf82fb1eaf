/**
 * The messages of the QEMU Machine Protocol (QEMU's docs/interop/qmp-spec): one JSON object a line. Text
 * in, a checked message out; whose connection it is and what a command means is not known here.
 */
import { z } from 'zod';

const greeting = z.object({
  QMP: z.object({
    version: z.object({
      qemu: z.object({ major: z.number(), minor: z.number(), micro: z.number() }),
      package: z.string(),
    }),
  }),
});

const success = z.object({ return: z.unknown(), id: z.unknown().optional() });

const failure = z.object({
  error: z.object({ class: z.string(), desc: z.string() }),
  id: z.unknown().optional(),
});

const event = z.object({
  event: z.string(),
  data: z.record(z.string(), z.unknown()).optional(),
  timestamp: z.object({ seconds: z.number(), microseconds: z.number() }),
});

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  /** What the packager added, for example `Debian 1:7.2+dfsg-7`; often empty. */
  readonly package: string;
}

/** Something that happened in QEMU, not asked for. */
export interface QmpEvent {
  readonly name: string;
  /** QEMU's clock, milliseconds since the epoch; NaN when the host could not tell it the time. */
  readonly timeMs: number;
  readonly data: Readonly<Record<string, unknown>>;
}

export type QmpMessage =
  | { readonly kind: 'greeting'; readonly version: QemuVersion }
  | { readonly kind: 'return'; readonly id: unknown; readonly value: unknown }
  | {
      readonly kind: 'error';
      readonly id: unknown;
      readonly errorClass: string;
      readonly description: string;
    }
  | { readonly kind: 'event'; readonly event: QmpEvent };

/** Reads a line; undefined when it is no QMP message. */
export function parseQmpLine(line: string): QmpMessage | undefined {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof json !== 'object' || json === null) return undefined;
  if ('return' in json) {
    const { data } = success.safeParse(json);
    return data && { kind: 'return', id: data.id, value: data.return };
  }
  if ('error' in json) {
    const { data } = failure.safeParse(json);
    return data && { kind: 'error', id: data.id, errorClass: data.error.class, description: data.error.desc };
  }
  if ('event' in json) {
    const { data } = event.safeParse(json);
    return (
      data && {
        kind: 'event',
        event: { name: data.event, timeMs: timeOf(data.timestamp), data: data.data ?? {} },
      }
    );
  }
  const { data } = greeting.safeParse(json);
  if (data === undefined) return undefined;
  const { version } = data.QMP;
  return { kind: 'greeting', version: { ...version.qemu, package: version.package } };
}

/** Both fields are -1 where the host has no time to give. */
function timeOf({ seconds, microseconds }: { seconds: number; microseconds: number }): number {
  return seconds < 0 ? Number.NaN : seconds * 1000 + microseconds / 1000;
}

interface QmpRequest {
  readonly command: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly id: number;
}

export function encodeQmpRequest(request: QmpRequest): string {
  return `${JSON.stringify({ execute: request.command, arguments: request.arguments, id: request.id })}\n`;
}
