/**
 * That no order is carried out twice: each of its two hosts claims it, under a key that can be made only once, before it
 * does anything. The leader takes an order back by the same key. What a claim says survives both hosts.
 */
import type { Bucket } from './bus.ts';
import { RevisionError } from './errors.ts';
import {
  type Claim,
  type FleetOrder,
  inWords,
  type OrderOutcome,
  readMessage,
  VERSION,
  writeMessage,
} from './messages.ts';

type Side = 'from' | 'to';

const keyOf = (order: string, side: Side): string => `${order}.${side}`;

export class Claims {
  readonly #bucket: Bucket;
  readonly #by: string;

  /** @param by the agent that claims: another one after a restart */
  constructor(bucket: Bucket, by: string) {
    this.#bucket = bucket;
    this.#by = by;
  }

  /**
   * Undefined when the order is the caller's now; else the claim that was there before. The caller asks only once for an
   * order, but for what was not answered.
   * @throws FleetUnreachableError when it is not known whether the claim was made: nothing may be done then
   */
  async claim(
    order: FleetOrder,
    side: Side,
    host: string,
    result: Claim['result'] = 'begun',
  ): Promise<Claim | undefined> {
    const claim: Claim = { version: VERSION, order, host, by: this.#by, result, why: null };
    try {
      await this.#bucket.create(keyOf(order.id, side), writeMessage('claim', claim));
      return undefined;
    } catch (error) {
      if (!(error instanceof RevisionError)) throw error;
      const before = (await this.find(order.id, side)) ?? { ...claim, by: '?', result: 'unknown' };
      // It was made by us, and the answer was lost.
      return before.by === this.#by && before.result === result ? undefined : before;
    }
  }

  async settle(
    order: FleetOrder,
    side: Side,
    host: string,
    { result, why }: Omit<OrderOutcome, 'id'>,
  ): Promise<void> {
    const said = why === null ? null : inWords(why);
    const claim: Claim = { version: VERSION, order, host, by: this.#by, result, why: said };
    await this.#bucket.put(keyOf(order.id, side), writeMessage('claim', claim));
  }

  async find(order: string, side: Side): Promise<Claim | undefined> {
    const entry = await this.#bucket.get(keyOf(order, side));
    return entry === null ? undefined : claimIn(entry.bytes);
  }

  /** What this host has begun and not ended, as after a restart of its agent. */
  async unsettled(host: string, side: Side): Promise<readonly Claim[]> {
    const entries = await this.#bucket.all();
    return entries
      .filter(({ key }) => key.endsWith(`.${side}`))
      .flatMap(({ bytes }) => claimIn(bytes) ?? [])
      .filter(claim => claim.host === host && claim.result === 'begun');
  }
}

function claimIn(bytes: Uint8Array): Claim | undefined {
  const read = readMessage('claim', bytes);
  return 'value' in read ? read.value : undefined;
}
