/**
 * Traces from files: what guests' programs want, written down as JSON, or as `aerostat policy record` (or Prometheus) saw
 * them. docs/policy.md says what a file holds. What happens to a trace is sim/policy's.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { z } from 'zod';
import type { GuestSample } from '../../policy/types.ts';
import { GIB } from '../../policy/units.ts';
import { NVME_S } from '../../sim/policy/demands.ts';
import { WARM_UP_S } from '../../sim/policy/run.ts';
import type { Demand, Trace } from '../../sim/policy/trace.ts';
import { type RecordedSample, readRecording } from '../../steering/recording.ts';
import { AerostatError } from '../../sys/error.ts';

/** A file that is no trace; the message says what is wrong, and where. */
class TraceFileError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_TRACE', message);
  }
}

const bytes = z.number().nonnegative();
const TraceSchema = z.strictObject({
  totalBytes: z.number().positive(),
  /** What the host's own programs use. */
  othersBytes: bytes.default(0),
  reserveBytes: bytes.optional(),
  seconds: z.number().positive(),
  guests: z
    .array(
      z.strictObject({
        name: z.string().min(1),
        memoryBytes: z.number().positive(),
        swapBytes: bytes.default(0),
        deflateOnOom: z.boolean().default(false),
        reporting: z.boolean().default(true),
        minBytes: bytes.optional(),
        maxBytes: bytes.optional(),
        shares: z.number().positive().optional(),
        /** From a moment on, until the next one of the list. */
        wants: z
          .array(
            z.strictObject({
              atS: z.number().nonnegative(),
              programsBytes: bytes,
              cacheBytes: bytes.default(0),
              accesses: z.number().nonnegative().default(0),
            }),
          )
          .min(1),
      }),
    )
    .min(1),
});
type FileTrace = z.output<typeof TraceSchema>;
type FileGuest = FileTrace['guests'][number];
type Want = FileGuest['wants'][number];

/** Page cache of a recording: how often its pages are read was not recorded. */
const ACCESSES = 50;

/** @throws TraceFileError, RecordingError, or what says that there is no such file */
export function readTraceFile(path: string): Trace {
  const text = readFileSync(path, 'utf8');
  const document = parsed(text);
  const isTrace = typeof document === 'object' && document !== null && 'guests' in document;
  return traceFrom(path, isTrace ? checked(path, document) : recorded(path, readRecording(path, text)));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function checked(path: string, document: unknown): FileTrace {
  const result = TraceSchema.safeParse(document);
  if (result.success) return result.data;
  const reasons = result.error.issues.map(({ path: place, message }) => `${place.join('.')}: ${message}`);
  throw new TraceFileError(`${path} is no trace: ${reasons.join('; ')}`);
}

function traceFrom(path: string, file: FileTrace): Trace {
  const { totalBytes, othersBytes, seconds, guests, reserveBytes } = file;
  const settings = guests.map(({ name, minBytes, maxBytes, shares }) => [
    name,
    {
      ...(minBytes === undefined ? {} : { minBytes }),
      ...(maxBytes === undefined ? {} : { maxBytes }),
      ...(shares === undefined ? {} : { shares }),
    },
  ]);
  return {
    name: basename(path),
    title: path,
    // Policies get hold of the guests as they are at the beginning.
    seconds: WARM_UP_S + seconds,
    totalBytes,
    others: () => ({ usedBytes: othersBytes, cacheBytes: 0 }),
    events: [],
    bursts: [],
    settings: {
      guests: Object.fromEntries(settings),
      ...(reserveBytes === undefined ? {} : { reserveBytes }),
    },
    guests: guests.map(guest => ({
      name: guest.name,
      memoryBytes: guest.memoryBytes,
      swapBytes: guest.swapBytes,
      deflateOnOom: guest.deflateOnOom,
      reporting: guest.reporting,
      statistics: true,
      inflateRate: 2 * GIB,
      pageSeconds: NVME_S,
      demand: demandOf(guest),
    })),
  };
}

function demandOf({ wants, memoryBytes }: FileGuest): (atS: number, into: Demand) => void {
  const inOrder = [...wants].sort((a, b) => a.atS - b.atS);
  return (atS, into) => {
    let low = 0;
    let high = inOrder.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (inOrder[middle].atS <= atS - WARM_UP_S) low = middle;
      else high = middle - 1;
    }
    const { programsBytes, cacheBytes, accesses } = inOrder[low];
    into.programsBytes = Math.min(memoryBytes, programsBytes);
    into.cacheBytes = cacheBytes;
    into.accesses = accesses;
    into.committedBytes = programsBytes;
  };
}

/** Of guests that say what is available to them, what they used; the others used what the host held for them. */
function recorded(path: string, samples: readonly RecordedSample[]): FileTrace {
  const [first, last] = [samples[0], samples[samples.length - 1]];
  const wants = new Map<string, Want[]>();
  const sizes = new Map<string, number>();
  let othersBytes = 0;
  for (const { wallMs, sample } of samples) {
    let held = 0;
    for (const guest of sample.guests) {
      held += heldBy(guest);
      sizes.set(guest.name, Math.max(sizes.get(guest.name) ?? 0, guest.memoryBytes));
      const own = wants.get(guest.name) ?? [];
      wants.set(guest.name, own);
      own.push(wantOf(guest, (wallMs - first.wallMs) / 1000));
    }
    const { totalBytes, availableBytes } = sample.host;
    othersBytes = Math.max(othersBytes, totalBytes - availableBytes - held);
  }
  return checked(path, {
    totalBytes: last.sample.host.totalBytes,
    othersBytes,
    seconds: Math.max(1, (last.wallMs - first.wallMs) / 1000),
    guests: [...wants].map(([name, own]) => ({ name, memoryBytes: sizes.get(name), wants: own })),
  });
}

const heldBy = ({ residentBytes, memoryBytes, givenBytes }: GuestSample): number =>
  residentBytes ?? Math.max(0, memoryBytes - givenBytes);

function wantOf(guest: GuestSample, atS: number): Want {
  const { statistics, memoryBytes, actualBytes } = guest;
  const available = statistics?.availableBytes ?? null;
  const left = memoryBytes - (statistics?.balloonedBytes ?? actualBytes);
  const programsBytes = available === null ? heldBy(guest) : Math.max(0, left - available);
  return { atS, programsBytes, cacheBytes: statistics?.cacheBytes ?? 0, accesses: ACCESSES };
}
