/**
 * What libvirt tells of itself: domains that start, end, stand still or go on, balloons that change, connections that are
 * lost. Its event loop waits on a thread of its own; koffi brings its calls to this thread, and that thread waits for them.
 */
import { koffi } from './koffi.ts';
import { calls, uuidOf } from './libvirt-calls.ts';

/** virDomainEventID. */
const LIFECYCLE = 0;
const REBOOT = 1;
const BALLOON_CHANGE = 13;
/** virDomainEventType: before it, definitions are written and removed. */
const STARTED = 2;

/** Sizes in KiB. */
export type LibvirtEvent =
  /** Whether changes are told of from now on. */
  | { readonly event: 'following'; readonly told: boolean }
  | { readonly event: 'lifecycle' }
  | { readonly event: 'reset'; readonly uuid: string }
  | { readonly event: 'balloon'; readonly uuid: string; readonly kib: number }
  /** The connection is lost. */
  | { readonly event: 'lost' };

type Hear = (event: LibvirtEvent) => void;

/** By their connections. A call that comes late is of one that is not here any more. */
const hearers = new Map<number, Hear>();

function callbacks() {
  const { lifecycleHandler, rebootHandler, balloonHandler, closeHandler } = calls();
  const hear = (connection: number, event: LibvirtEvent) => hearers.get(connection)?.(event);
  return {
    lifecycle: koffi().register((connection: number, _domain: number, type: number) => {
      if (type >= STARTED) hear(connection, { event: 'lifecycle' });
      return 0;
    }, lifecycleHandler),
    reboot: koffi().register((connection: number, domain: number) => {
      hear(connection, { event: 'reset', uuid: uuidOf(domain) });
    }, rebootHandler),
    balloon: koffi().register((connection: number, domain: number, kib: number | bigint) => {
      hear(connection, { event: 'balloon', uuid: uuidOf(domain), kib: Number(kib) });
    }, balloonHandler),
    close: koffi().register((connection: number) => hear(connection, { event: 'lost' }), closeHandler),
  };
}

/** For as long as the process lives: libvirt's thread may be in one of them at any time. */
let registered: ReturnType<typeof callbacks> | undefined;

/**
 * Starts libvirt's event loop, before the first connection. It never ends, and neither does a process by itself that has it:
 * Node waits for its threads. @returns false where libvirt has none
 */
export function startEventLoop(): boolean {
  if (calls().registerEventLoop() < 0) return false;
  const turn = () => {
    calls().runEventLoop.async((error: unknown, answer: number) => {
      if (!error && answer >= 0) return turn();
      // Taken again it would fail again, at once and for ever.
      for (const hear of hearers.values()) hear({ event: 'following', told: false });
    });
  };
  turn();
  return true;
}

/** The events of one connection. */
export class LibvirtEvents {
  readonly #connection: number;
  readonly #ids: readonly number[];

  /** What libvirt refuses is left out, and `following` says so. */
  constructor(connection: number, hear: Hear) {
    registered ??= callbacks();
    const { lifecycle, reboot, balloon, close } = registered;
    const { registerEvent, registerClose } = calls();
    this.#connection = connection;
    hearers.set(connection, hear);
    const ids = [
      registerEvent(connection, 0, LIFECYCLE, lifecycle, null, null),
      registerEvent(connection, 0, REBOOT, reboot, null, null),
      registerEvent(connection, 0, BALLOON_CHANGE, balloon, null, null),
    ];
    this.#ids = ids.filter(id => id >= 0);
    registerClose(connection, close, null, null);
    hear({ event: 'following', told: this.#ids.length === ids.length });
  }

  /** To be called before the connection is closed, which they would keep. */
  close(): void {
    hearers.delete(this.#connection);
    for (const id of this.#ids) calls().deregisterEvent(this.#connection, id);
    if (registered !== undefined) calls().unregisterClose(this.#connection, registered.close);
  }
}
