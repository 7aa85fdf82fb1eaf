/**
 * What others ask of a host, judged before any of its guests is looked at: orders of an old leader, and orders that go by a
 * report of long ago, are refused. What is taken is carried out by departures.ts and arrivals.ts.
 */
import type { Arrivals } from './arrivals.ts';
import type { Departures } from './departures.ts';
import type { Leadership } from './leadership.ts';
import {
  type FleetOrder,
  type HostAnswer,
  type HostQuestion,
  inWords,
  type Refusal,
  readMessage,
  VERSION,
  writeMessage,
} from './messages.ts';
import type { OwnReport } from './report-loop.ts';

interface HostOrdersOptions {
  readonly host: string;
  /** An order that goes by a report of ours that is older is void. */
  readonly staleMs: number;
  readonly leadership: Leadership;
  readonly report: OwnReport;
  readonly arrivals: Arrivals;
  readonly departures: Departures;
  /** A guest that moved runs here. */
  readonly onArrival: () => void;
  readonly onRefusedMessage: (refusal: Refusal, why: string) => void;
  readonly log: (message: string) => void;
}

type Answer = Pick<HostAnswer, 'refusal' | 'address'>;

export class HostOrders {
  readonly #options: HostOrdersOptions;
  /** Orders that were taken, as a source or a destination, and those that were refused. */
  taken = 0;
  refused = 0;

  constructor(options: HostOrdersOptions) {
    this.#options = options;
  }

  async answer(bytes: Uint8Array): Promise<string> {
    const { onRefusedMessage } = this.#options;
    const read = readMessage('hostQuestion', bytes);
    let answer: Answer;
    if ('refusal' in read) {
      onRefusedMessage(read.refusal, read.why);
      answer = { refusal: read.why, address: null };
    } else {
      answer = await this.#obey(read.value).catch(error => ({
        refusal: (error as Error).message,
        address: null,
      }));
      this.#count(read.value, answer);
    }
    const refusal = answer.refusal === null ? null : inWords(answer.refusal);
    return writeMessage('hostAnswer', { version: VERSION, refusal, address: answer.address });
  }

  #count({ ask, order }: HostQuestion, { refusal }: Answer): void {
    if (ask !== 'move' && ask !== 'receive') return;
    if (refusal === null) {
      this.taken++;
      return;
    }
    this.refused++;
    const { id, guest, from, to } = order;
    this.#options.log(`refused the order ${id} (${guest} from ${from} to ${to}): ${refusal}`);
  }

  async #obey({ ask, order, epoch }: HostQuestion): Promise<Answer> {
    const { host, arrivals, departures, onArrival } = this.#options;
    switch (ask) {
      case 'arrived': {
        const refusal = await arrivals.arrived(order);
        if (refusal === null) onArrival();
        return { refusal, address: null };
      }
      case 'release':
        if (order.to === host) await arrivals.release(order);
        return { refusal: null, address: null };
      case 'move':
        return {
          refusal: this.#against(order, epoch, 'from') ?? (await departures.take(order, epoch)),
          address: null,
        };
      case 'receive': {
        // One that was admitted under its leader stays so: it is only asked again for its place.
        const refusal = arrivals.knows(order) ? null : this.#against(order, epoch, 'to');
        if (refusal !== null) return { refusal, address: null };
        const place = await arrivals.receive(order);
        return 'refusal' in place
          ? { refusal: place.refusal, address: null }
          : { refusal: null, address: place.address };
      }
    }
  }

  #against(order: FleetOrder, epoch: number, side: 'from' | 'to'): string | null {
    const { host, staleMs, leadership, report } = this.#options;
    if (order[side] !== host) return `it is for ${order[side]}`;
    if (!leadership.accepts(epoch))
      return `it is of an old leader (epoch ${epoch}); the present one has ${leadership.highest}`;
    const ageMs = report.ageOf(side === 'from' ? order.fromRevision : order.toRevision);
    if (ageMs === null) return 'it goes by a report that this agent does not know any more';
    return ageMs > staleMs ? `it goes by a report of ${Math.round(ageMs / 1000)} s ago` : null;
  }
}
