/**
 * The process that `bench:micro -- leader` measures: an agent that leads, fed with reports by its standard input as NATS
 * would bring them; or, as the baseline, a process that takes the same bytes and does nothing with them. It says its peak
 * when its input ends.
 */
import type { Bucket, BucketName, Bus, Entry } from '../src/fleet/bus.ts';
import { RevisionError } from '../src/fleet/errors.ts';
import { readFrames, SETTINGS } from './leader-frames.ts';

const [, , role] = process.argv;

/** Values in this process; what is stored by others is told by {@link MemoryBucket.bring}. */
class MemoryBucket implements Bucket {
  readonly #entries = new Map<string, Entry>();
  readonly #watchers = new Set<(entry: Entry) => void>();
  readonly #keeps: boolean;
  #revision = 2 ** 32;

  /** @param keeps false for what an agent only hears of */
  constructor(keeps: boolean) {
    this.#keeps = keeps;
  }

  bring(entry: Entry): void {
    for (const stored of this.#watchers) stored(entry);
  }

  async create(key: string, text: string): Promise<number> {
    if (this.#entries.has(key)) throw new RevisionError(key);
    return this.put(key, text);
  }

  async update(key: string, text: string, revision: number): Promise<number> {
    if ((this.#entries.get(key)?.revision ?? 0) !== revision) throw new RevisionError(key);
    return this.put(key, text);
  }

  async put(key: string, text: string): Promise<number> {
    const entry = { key, revision: ++this.#revision, bytes: new TextEncoder().encode(text) };
    if (this.#keeps) this.#entries.set(key, entry);
    this.bring(entry);
    return entry.revision;
  }

  get = async (key: string): Promise<Entry | null> => this.#entries.get(key) ?? null;
  delete = async (key: string): Promise<void> => void this.#entries.delete(key);
  all = async (): Promise<readonly Entry[]> => [...this.#entries.values()];

  watch(stored: (entry: Entry) => void): () => void {
    this.#watchers.add(stored);
    return () => this.#watchers.delete(stored);
  }
}

interface Taker {
  readonly take: (entry: Entry) => void;
  /** What became of it. */
  readonly say: () => object;
}

/** A bare process. */
function bare(): Taker {
  let bytes = 0;
  return {
    take: entry => {
      bytes += entry.bytes.length;
    },
    say: () => ({ bytes }),
  };
}

async function lead(): Promise<Taker> {
  const [{ Agent }, { placementOf }] = await Promise.all([
    import('../src/fleet/agent.ts'),
    import('../src/fleet/settings.ts'),
    // Not used here, and loaded by every agent.
    import('@nats-io/transport-node'),
    import('@nats-io/jetstream'),
    import('@nats-io/kv'),
  ]);
  const buckets: Record<BucketName, MemoryBucket> = {
    hosts: new MemoryBucket(true),
    leader: new MemoryBucket(true),
    wishes: new MemoryBucket(true),
    orders: new MemoryBucket(true),
  };
  const taken = new TextEncoder().encode(JSON.stringify({ version: 1, refusal: null, address: null }));
  const bus: Bus = {
    ...{ state: 'connected', server: 'bench', buckets },
    onState: () => () => {},
    denied: null,
    onTrouble: () => () => {},
    ask: async () => taken,
    serve: () => () => {},
    record: async () => {},
    recorded: async function* () {},
    close: async () => {},
  };
  const { periodMs } = SETTINGS;
  const agent = new Agent({
    ...{ fleet: 'bench', host: 'leader', periodMs, memoryBytes: 2 ** 30, reserveBytes: 0 },
    linkBytesPerSecond: 1.25e9,
    placement: placementOf(periodMs, { settleMs: 2 * periodMs, patienceMs: 2 * periodMs }),
    staleMs: 10 * periodMs,
    machines: { all: async () => [], find: async () => undefined } as never,
    startReceiver: () => Promise.reject(new Error('no machine comes here')),
    openBus: async () => bus,
    now: () => performance.now(),
    wallClock: Date.now,
    sleep: ms => new Promise(resolve => void setTimeout(resolve, ms)),
    log: () => {},
  });
  agent.start();
  return {
    take: entry => buckets.hosts.bring(entry),
    say: () => {
      const { role: became, ordersGiven, hosts } = agent.status();
      return { role: became, ordersGiven, hosts: hosts.length };
    },
  };
}

const { take, say } = role === 'leader' ? await lead() : bare();
await readFrames(process.stdin, take);
const { heapUsed } = process.memoryUsage();
const peakBytes = process.resourceUsage().maxRSS * 1024;
process.stdout.write(JSON.stringify({ ...say(), peakBytes, heapUsed }), () => process.exit());
