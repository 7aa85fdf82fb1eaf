/**
 * Samples as they are kept in files: JSON lines, one for each moment. Also what Prometheus answers to a query of a range
 * (`/api/v1/query_range`, its HTTP JSON form) about the metrics of our daemons.
 */
import { z } from 'zod';
import type { GuestSample, Sample } from '../policy/types.ts';
import { AerostatError } from '../sys/error.ts';

/** Raised for a file that holds neither samples nor what Prometheus answers. */
export class RecordingError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_RECORDING', message);
  }
}

export interface RecordedSample {
  readonly wallMs: number;
  readonly sample: Sample;
}

export const recordLine = (sample: Sample, wallMs: number): string => JSON.stringify({ wallMs, sample });

const figure = z.number().nullable();
const GuestSampleSchema = z.object({
  name: z.string(),
  memoryBytes: z.number(),
  targetBytes: z.number(),
  actualBytes: z.number(),
  givenBytes: z.number(),
  residentBytes: figure,
  epoch: z.number(),
  statistics: z
    .object({
      availableBytes: figure,
      freeBytes: figure,
      cacheBytes: figure,
      swapInBytes: figure,
      swapOutBytes: figure,
      majorFaults: figure,
      minorFaults: figure,
      oomKills: figure,
      allocationStalls: figure,
      balloonedBytes: figure,
      ageMs: z.number().optional(),
      periodMsMin: z.number().optional(),
    })
    .nullable(),
});
const LineSchema = z.object({
  wallMs: z.number(),
  sample: z.object({
    atMs: z.number(),
    host: z.object({
      totalBytes: z.number(),
      availableBytes: z.number(),
      freeBytes: z.number(),
      reservedBytes: z.number(),
    }),
    guests: z.array(GuestSampleSchema),
  }),
});

const SeriesSchema = z.object({
  metric: z.record(z.string(), z.string()),
  values: z.array(z.tuple([z.number(), z.string()])),
});
const RangeSchema = z.object({
  status: z.literal('success'),
  data: z.object({ resultType: z.literal('matrix'), result: z.array(SeriesSchema) }),
});
type Series = z.output<typeof SeriesSchema>;

/** Of either kind of file, or several answers of Prometheus one after the other. @throws RecordingError */
export function readRecording(path: string, text: string): RecordedSample[] {
  const lines = text.split('\n');
  const series: Series[] = [];
  const samples: RecordedSample[] = [];
  const whole = parseJson(text);
  const documents = whole === undefined ? lines.map(parseJson) : [whole];
  for (const [at, document] of documents.entries()) {
    if (document === undefined && (lines[at]?.trim() ?? '') === '') continue;
    const line = LineSchema.safeParse(document);
    const range = RangeSchema.safeParse(document);
    if (line.success) samples.push(line.data);
    else if (range.success) series.push(...range.data.data.result);
    // The last line may have been cut off where the recording ended.
    else if (at < documents.length - 1 || documents.length === 1) {
      throw new RecordingError(
        `${path}:${at + 1}: neither a sample of "aerostat policy record" nor an answer of Prometheus' /api/v1/query_range`,
      );
    }
  }
  if (series.length > 0) samples.push(...samplesOf(path, series));
  if (samples.length === 0) throw new RecordingError(`${path} holds no samples`);
  return samples.sort((one, other) => one.wallMs - other.wallMs);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Names of our metrics, by what they are in a sample. */
const METRICS = {
  memory: 'aerostat_guest_memory_bytes',
  target: 'aerostat_guest_target_bytes',
  actual: 'aerostat_guest_actual_bytes',
  ballooned: 'aerostat_guest_ballooned_bytes',
  pending: 'aerostat_guest_pending_bytes',
  resident: 'aerostat_guest_resident_bytes',
  available: 'aerostat_guest_statistics_available_bytes',
  free: 'aerostat_guest_statistics_free_bytes',
  cache: 'aerostat_guest_statistics_cache_bytes',
  swapIn: 'aerostat_guest_swap_in_bytes_total',
  swapOut: 'aerostat_guest_swap_out_bytes_total',
  oomKills: 'aerostat_guest_oom_kills_total',
  age: 'aerostat_guest_statistics_age_seconds',
  stalls: 'aerostat_guest_allocation_stalls_total',
  connections: 'aerostat_guest_connections_total',
  resets: 'aerostat_guest_resets_total',
} as const;
type Figures = Partial<Record<keyof typeof METRICS | 'minorFaults' | 'majorFaults', number>>;

const KEY_BY_METRIC = new Map(Object.entries(METRICS).map(([key, metric]) => [metric, key]));

function samplesOf(path: string, series: readonly Series[]): RecordedSample[] {
  const moments = new Map<number, { host: Record<string, number>; guests: Map<string, Figures> }>();
  for (const { metric, values } of series) {
    const key = figureOf(metric);
    for (const [seconds, text] of values) {
      const moment = moments.get(seconds) ?? { host: {}, guests: new Map<string, Figures>() };
      moments.set(seconds, moment);
      const value = Number(text);
      if (metric.guest === undefined) moment.host[metric.__name__ ?? ''] = value;
      else if (key !== undefined) {
        moment.guests.set(metric.guest, { ...moment.guests.get(metric.guest), [key]: value });
      }
    }
  }
  return [...moments].flatMap(([seconds, { host, guests }]) => {
    const totalBytes = host.aerostat_host_memory_bytes;
    const availableBytes = host.aerostat_host_memory_available_bytes;
    if (totalBytes === undefined || availableBytes === undefined) {
      throw new RecordingError(
        `${path} says nothing of the host at ${new Date(seconds * 1000).toISOString()}; ask for aerostat_host_memory_bytes and aerostat_host_memory_available_bytes, too`,
      );
    }
    const atMs = seconds * 1000;
    const sample = {
      atMs,
      host: { totalBytes, availableBytes, freeBytes: availableBytes, reservedBytes: 0 },
      guests: [...guests].flatMap(([name, figures]) => guestOf(name, figures)),
    };
    return [{ wallMs: atMs, sample }];
  });
}

function figureOf({ __name__: name = '', ...labels }: Readonly<Record<string, string>>): string | undefined {
  if (name !== 'aerostat_guest_page_faults_total') return KEY_BY_METRIC.get(name as never);
  return labels.kind === 'major' ? 'majorFaults' : 'minorFaults';
}

function guestOf(name: string, figures: Figures): GuestSample[] {
  const { memory, actual = 0 } = figures;
  if (memory === undefined || memory === 0) return [];
  const known = (value: number | undefined) => value ?? null;
  return [
    {
      name,
      memoryBytes: memory,
      targetBytes: figures.target ?? actual,
      actualBytes: actual,
      givenBytes: Math.max(0, (figures.ballooned ?? actual) - (figures.pending ?? 0)),
      residentBytes: known(figures.resident),
      epoch: 1 + (figures.connections ?? 0) + (figures.resets ?? 0),
      statistics:
        figures.available === undefined
          ? null
          : {
              availableBytes: figures.available,
              freeBytes: known(figures.free),
              cacheBytes: known(figures.cache),
              swapInBytes: known(figures.swapIn),
              swapOutBytes: known(figures.swapOut),
              majorFaults: known(figures.majorFaults),
              minorFaults: known(figures.minorFaults),
              oomKills: known(figures.oomKills),
              allocationStalls: known(figures.stalls),
              balloonedBytes: actual,
              ...(figures.age === undefined ? {} : { ageMs: 1000 * figures.age }),
            },
    },
  ];
}
