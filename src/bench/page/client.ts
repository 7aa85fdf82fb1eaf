/**
 * A client that asks the daemon for what the page asks for, at the page's pace, and draws nothing: the page where no
 * browser is, and the page on another machine, whose browser takes no processor from the host. What it asks when is
 * web/src/live.ts's and web/src/map-card.tsx's, how often is theirs and its own.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { DeviceGuestStatus } from '../../control/contract.ts';
import { isMoving } from '../../control/judgement.ts';
import {
  ALL_EVERY,
  DAEMON_EVERY,
  FAST_TICK_MS,
  MAP_MOVING_MS,
  MAP_MS,
  TICK_MS,
  TOLD_EVENTS,
} from '../../server/page-pace.ts';
import type { Onlooker, Place, Update, Watched, WatchedPage } from './view.ts';

export class PageClient implements Onlooker {
  readonly name = 'client';

  async look(place: Place): Promise<WatchedPage> {
    const view = new ClientView(place);
    await view.start();
    return view;
  }

  async close(): Promise<void> {}
}

/** Ends the pauses of those who wait for it. */
class Bell {
  #next = new AbortController();

  get signal(): AbortSignal {
    return this.#next.signal;
  }

  ring(): void {
    this.#next.abort();
    this.#next = new AbortController();
  }
}

class ClientView implements WatchedPage {
  readonly #place: Place;
  readonly #ending = new AbortController();
  readonly #lives: Promise<void>[] = [];
  /** Something happened that the page looks at without waiting for its next tick. */
  readonly #news = new Bell();
  /** The guest began to move, or came to rest. */
  readonly #turned = new Bell();
  #updates: Update[] = [];
  #moving = false;
  #ticks = 0;
  #tag = '';

  constructor(place: Place) {
    this.#place = place;
  }

  async start(): Promise<void> {
    await this.#tick();
    this.#lives.push(this.#tickAlong(), this.#listen());
    if (this.#place.guest !== undefined) this.#lives.push(this.#mapAlong(this.#place.guest));
  }

  async watch(ms: number, signal: AbortSignal): Promise<Watched> {
    this.#updates = [];
    const startMs = performance.now();
    await delay(ms, undefined, { signal });
    return { elapsedMs: performance.now() - startMs, updates: this.#updates, drawing: null };
  }

  async leave(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#lives);
  }

  async #tickAlong(): Promise<void> {
    while (await this.#pause(this.#moving ? FAST_TICK_MS : TICK_MS, this.#news)) {
      await this.#tick().catch(() => {});
    }
  }

  async #mapAlong(guest: string): Promise<void> {
    do await this.#map(guest).catch(() => {});
    while (await this.#pause(this.#moving ? MAP_MOVING_MS : MAP_MS, this.#turned));
  }

  /** Whether a viewer is still there after so long, or when the bell rings. */
  async #pause(ms: number, bell: Bell): Promise<boolean> {
    const signal = AbortSignal.any([this.#ending.signal, bell.signal]);
    await delay(ms, undefined, { signal }).catch(() => {});
    return !this.#ending.signal.aborted;
  }

  async #tick(): Promise<void> {
    const { guest } = this.#place;
    const whole = !this.#moving || this.#ticks % ALL_EVERY === 0;
    if (!whole && guest !== undefined) {
      const paths = [guestPath(guest), `${guestPath(guest)}/migration`];
      const [status] = await Promise.all(paths.map(path => this.#get(path)));
      this.#see(JSON.parse(status));
    } else {
      if (guest !== undefined)
        void this.#get(`${guestPath(guest)}/statistics?fresh_ms=1000&timeout_ms=2000`).catch(() => {});
      const startMs = performance.now();
      const paths = ['v1/guests', 'v1/statistics', 'v1/host'];
      if (this.#ticks % DAEMON_EVERY === 0) paths.push('v1/daemon');
      const answers = await Promise.all(paths.map(path => this.#get(path)));
      if (guest !== undefined) await this.#get(`${guestPath(guest)}/migration`);
      const bytes = answers.reduce((total, text) => total + Buffer.byteLength(text), 0);
      this.#updates.push({ elapsedMs: performance.now() - startMs, bytes });
      const { guests } = JSON.parse(answers[0]) as { guests: readonly DeviceGuestStatus[] };
      for (const one of guests) if (one.name === guest) this.#see(one);
    }
    this.#ticks++;
  }

  #see(status: DeviceGuestStatus): void {
    const moving = isMoving(status);
    if (moving === this.#moving) return;
    this.#moving = moving;
    this.#turned.ring();
  }

  async #map(guest: string): Promise<void> {
    const response = await this.#ask(
      `${guestPath(guest)}/map?`,
      this.#tag === '' ? {} : { 'If-None-Match': this.#tag },
    );
    this.#tag = response.headers.get('etag') ?? this.#tag;
    await response.arrayBuffer();
  }

  /** Reads events until the end; each is a reason to look at once. */
  async #listen(): Promise<void> {
    try {
      const { body } = await this.#ask(`v1/events?types=${TOLD_EVENTS.join(',')}`);
      for await (const _ of body ?? []) this.#news.ring();
    } catch {
      // The view ends, or the daemon does.
    }
  }

  async #get(path: string): Promise<string> {
    return (await this.#ask(path)).text();
  }

  #ask(path: string, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
    const { origin, token } = this.#place;
    return fetch(`${origin}/${path}`, {
      headers: { Authorization: `Bearer ${token}`, ...headers },
      signal: this.#ending.signal,
    });
  }
}

const guestPath = (name: string): string => `v1/guests/${encodeURIComponent(name)}`;
