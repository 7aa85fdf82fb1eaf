import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  HINT_DONE,
  HINT_ID_MIN,
  HINT_STOP,
  type HintPhase,
  HintResponder,
  HintSession,
} from '../../src/balloon/hint-session.ts';

const ID = HINT_ID_MIN;
const STANDARD = { hasDone: true };
const SG = { hasDone: false };

describe("the host's side of a hint session", () => {
  type Event = 'start' | 'stop' | 'done' | 'reset' | 'id' | 'stale' | 'STOP';

  const apply = (session: HintSession, event: Event) => {
    switch (event) {
      case 'start':
        return session.start();
      case 'stop':
        return session.stop();
      case 'done':
        return session.done();
      case 'reset':
        return session.reset();
      case 'id':
        return session.onIdBuffer(session.id ?? 2);
      case 'stale':
        return session.onIdBuffer(7);
      case 'STOP':
        return session.onStopBuffer();
    }
  };

  const PATHS: Record<HintPhase, readonly Event[]> = {
    idle: [],
    requested: ['start'],
    running: ['start', 'id'],
    stopped: ['start', 'id', 'STOP'],
    done: ['start', 'id', 'STOP', 'done'],
  };

  test.each<[HintPhase, Event, HintPhase]>([
    ['idle', 'start', 'requested'],
    ['idle', 'stop', 'idle'],
    ['idle', 'done', 'idle'],
    ['idle', 'id', 'idle'],
    ['idle', 'stale', 'idle'],
    ['idle', 'STOP', 'idle'],
    ['requested', 'start', 'requested'],
    ['requested', 'stop', 'stopped'],
    ['requested', 'done', 'done'],
    ['requested', 'id', 'running'],
    ['requested', 'stale', 'requested'],
    ['requested', 'STOP', 'requested'],
    ['requested', 'reset', 'idle'],
    ['running', 'start', 'requested'],
    ['running', 'stop', 'stopped'],
    ['running', 'done', 'done'],
    ['running', 'id', 'running'],
    ['running', 'stale', 'stopped'],
    ['running', 'STOP', 'stopped'],
    ['running', 'reset', 'idle'],
    ['stopped', 'start', 'requested'],
    ['stopped', 'stop', 'stopped'],
    ['stopped', 'done', 'done'],
    ['stopped', 'id', 'stopped'],
    ['stopped', 'stale', 'stopped'],
    ['stopped', 'STOP', 'stopped'],
    ['done', 'start', 'requested'],
    ['done', 'stop', 'done'],
    ['done', 'done', 'done'],
    ['done', 'id', 'done'],
    ['done', 'stale', 'done'],
    ['done', 'STOP', 'done'],
    ['done', 'reset', 'idle'],
  ])('%s, on %s, becomes %s', (from, event, to) => {
    const session = new HintSession(STANDARD);
    for (const step of PATHS[from]) apply(session, step);
    expect(session.phase).toBe(from);
    apply(session, event);
    expect(session.phase).toBe(to);
    expect(session.onPages()).toBe(to === 'running');
  });

  test.each<[HintPhase, number, number]>([
    ['idle', HINT_STOP, HINT_STOP],
    ['requested', ID, ID],
    ['running', ID, ID],
    ['stopped', HINT_STOP, HINT_STOP],
    ['done', HINT_DONE, HINT_STOP],
  ])('shows in the configuration while %s: %i, and in profile sg %i', (phase, standard, sg) => {
    for (const [options, shown] of [
      [STANDARD, standard],
      [SG, sg],
    ] as const) {
      const session = new HintSession(options);
      for (const step of PATHS[phase]) apply(session, step);
      expect(session.commandId).toBe(shown);
    }
  });

  test('says whether the configuration changed', () => {
    const session = new HintSession(STANDARD);
    expect([session.stop(), session.done(), session.id]).toEqual([false, false, null]);
    expect([session.start(), session.stop(), session.stop()]).toEqual([ID, true, false]);
    expect([session.done(), session.done(), session.start(), session.id]).toEqual([
      true,
      false,
      ID + 1,
      ID + 1,
    ]);
    const sg = new HintSession(SG);
    sg.start();
    sg.onIdBuffer(ID);
    sg.onStopBuffer();
    expect([sg.done(), sg.phase]).toEqual([false, 'done']);
  });

  test('does not take pages under the id of a session that was replaced', () => {
    const session = new HintSession(STANDARD);
    const first = session.start();
    session.onIdBuffer(first);
    const second = session.start();
    expect(session.onPages()).toBe(false);
    // The guest is late: it still ends the first session, and only then begins the second.
    session.onStopBuffer();
    expect(session.onPages()).toBe(false);
    session.onIdBuffer(second);
    expect(session.onPages()).toBe(true);
  });

  test('does not take pages of a guest that comes back to a session that it left', () => {
    const session = new HintSession(STANDARD);
    const id = session.start();
    for (const left of [HINT_STOP, HINT_DONE, 5]) {
      session.onIdBuffer(id);
      session.onIdBuffer(left);
      session.onIdBuffer(id);
      expect(session.onPages()).toBe(false);
    }
  });

  test('goes on from a saved state', () => {
    const session = new HintSession(STANDARD);
    session.start();
    session.onIdBuffer(ID);
    const copy = new HintSession(STANDARD, structuredClone(session.state));
    session.stop();
    expect(copy.onPages()).toBe(true);
    expect(session.onPages()).toBe(false);
  });

  test('begins at the id that it is given, and never falls below it', () => {
    const session = new HintSession({ ...STANDARD, idMin: ID + 7 });
    expect([session.start(), session.start()]).toEqual([ID + 7, ID + 8]);
    expect(new HintSession({ ...STANDARD, idMin: ID + 7 }, { phase: 'done', id: ID + 9 }).start()).toBe(
      ID + 10,
    );
    expect(() => new HintSession({ ...STANDARD, idMin: 2 })).toThrow('hint ids');
  });

  test('issues no id after the last', () => {
    const session = new HintSession(STANDARD, { phase: 'stopped', id: 0xffff_fffe });
    expect(session.start()).toBe(0xffff_ffff);
    expect(() => session.start()).toThrow(expect.objectContaining({ code: 'AEROSTAT_HINT_IDS' }));
    expect(session.phase).toBe('requested');
  });

  test('counts pages exactly as the history of its buffers says, and never reuses an id', () => {
    const event = fc.oneof(
      fc.constantFrom('start', 'start', 'stop', 'done', 'reset', 'STOP', 'pages', 'pages'),
      // The newest id, one of those before it, or none of ours.
      fc.constantFrom(0, 0, 0, 1, 2, 2 ** 31),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), events => {
        const session = new HintSession(STANDARD);
        const issued: number[] = [];
        // What the guest sent since the last start; undefined when the host has ended that session.
        let sent: number[] | undefined;
        for (const event of events) {
          if (event === 'start') {
            const id = session.start();
            expect(issued).not.toContain(id);
            expect(id).toBeGreaterThanOrEqual(HINT_ID_MIN);
            issued.push(id);
            sent = [];
          } else if (event === 'stop' || event === 'done' || event === 'reset') {
            session[event]();
            sent = undefined;
          } else if (event === 'STOP') {
            session.onStopBuffer();
            sent?.push(HINT_STOP);
          } else if (event === 'pages') {
            const id = issued.at(-1) ?? -1;
            const own = sent?.slice(sent.indexOf(id));
            const counts = sent?.includes(id) === true && own?.every(command => command === id) === true;
            expect(session.onPages()).toBe(counts);
          } else {
            const id = (issued.at(-1) ?? HINT_ID_MIN) - event;
            session.onIdBuffer(id);
            sent?.push(id);
          }
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe("the guest's side of a hint session", () => {
  test('answers a new id with the id, pages and STOP, and gives them back on DONE', () => {
    const guest = new HintResponder(STANDARD);
    expect(guest.onConfig(HINT_STOP)).toBe('wait');
    expect(guest.onConfig(ID)).toBe('begin');
    expect(guest.begin()).toBe(ID);
    expect(guest.next()).toBe('hint');
    guest.hold();
    expect(guest.next()).toBe('hint');
    guest.exhaust();
    expect(guest.next()).toBe('end');
    guest.end();
    expect(guest.next()).toBe('wait');
    expect(guest.onConfig(HINT_DONE)).toBe('release');
    guest.release();
    expect(guest.next()).toBe('wait');
  });

  test('never answers the same id twice', () => {
    const guest = new HintResponder(STANDARD);
    guest.onConfig(ID);
    guest.begin();
    expect(guest.onConfig(ID)).toBe('hint');
    guest.exhaust();
    guest.end();
    expect(guest.onConfig(ID)).toBe('wait');
    expect(guest.onConfig(HINT_STOP)).toBe('wait');
    expect(guest.onConfig(ID)).toBe('wait');
    expect(guest.onConfig(ID + 1)).toBe('begin');
  });

  test.each([
    [HINT_STOP, 'wait'],
    [HINT_DONE, 'release'],
    [ID + 1, 'begin'],
  ] as const)('ends its stream with STOP when the configuration turns to %i', (commandId, then) => {
    const guest = new HintResponder(STANDARD);
    guest.onConfig(ID);
    guest.begin();
    guest.hold();
    expect(guest.onConfig(commandId)).toBe('end');
    guest.end();
    expect(guest.next()).toBe(then);
  });

  test('may give blocks back early and go on', () => {
    const guest = new HintResponder(STANDARD);
    guest.onConfig(ID);
    guest.begin();
    guest.hold();
    guest.release();
    expect(guest.next()).toBe('hint');
    expect(guest.onConfig(HINT_DONE)).toBe('end');
    guest.end();
    expect(guest.next()).toBe('wait');
  });

  test('keeps no blocks after STOP in profile sg, which has no DONE', () => {
    const guest = new HintResponder(SG);
    guest.onConfig(ID);
    guest.begin();
    guest.hold();
    guest.exhaust();
    expect(guest.next()).toBe('end');
    guest.end();
    expect(guest.next()).toBe('release');
    guest.release();
    expect(guest.onConfig(HINT_DONE)).toBe('wait');
  });

  test('starts anew after a reset', () => {
    const guest = new HintResponder(STANDARD);
    guest.onConfig(ID);
    guest.begin();
    guest.reset();
    expect(guest.next()).toBe('wait');
    expect(guest.onConfig(ID)).toBe('begin');
  });

  test('goes on from a saved state', () => {
    const guest = new HintResponder(STANDARD);
    guest.onConfig(ID);
    guest.begin();
    const copy = new HintResponder(STANDARD, structuredClone(guest.state));
    guest.end();
    expect([copy.next(), guest.next()]).toEqual(['hint', 'wait']);
  });

  test('refuses steps out of turn: a bug of the driver', () => {
    const guest = new HintResponder(STANDARD);
    expect(() => guest.begin()).toThrow('out of turn');
    expect(() => guest.hold()).toThrow('outside of a session');
    expect(() => guest.end()).toThrow('had not begun');
  });
});

describe.each([STANDARD, SG])('both sides over one ring (DONE known: $hasDone)', options => {
  interface Buffer {
    readonly kind: 'command' | 'pages';
    /** The command, or the sync before which the hinted page was last known to be free. */
    readonly value: number;
  }

  test('count no hint from before the last sync, and part with nothing held', () => {
    const move = fc.constantFrom('round', 'stop', 'done', 'read', 'guest', 'guest', 'device', 'pressure');
    fc.assert(
      fc.property(fc.array(move, { maxLength: 80 }), fc.nat(4), (moves, blocks) => {
        const host = new HintSession(options);
        const guest = new HintResponder(options);
        const ring: Buffer[] = [];
        let syncs = 0;
        let free = blocks;
        let open = false;

        const guestStep = (): boolean => {
          switch (guest.next()) {
            case 'begin':
              expect(open).toBe(false);
              open = true;
              ring.push({ kind: 'command', value: guest.begin() });
              return true;
            case 'hint':
              if (free === 0) {
                guest.exhaust();
              } else {
                free--;
                guest.hold();
                ring.push({ kind: 'pages', value: syncs });
              }
              return true;
            case 'end':
              expect(open).toBe(true);
              open = false;
              guest.end();
              ring.push({ kind: 'command', value: HINT_STOP });
              return true;
            case 'release':
              free = blocks;
              guest.release();
              return true;
            case 'wait':
              return false;
          }
        };
        const deviceStep = () => {
          const buffer = ring.shift();
          if (buffer?.kind === 'command') host.onIdBuffer(buffer.value);
          if (buffer?.kind === 'pages' && host.onPages()) expect(buffer.value).toBe(syncs);
        };

        for (const move of moves) {
          if (move === 'round') {
            host.stop();
            syncs++;
            host.start();
          } else if (move === 'stop' || move === 'done') host[move]();
          else if (move === 'read') guest.onConfig(host.commandId);
          else if (move === 'guest') guestStep();
          else if (move === 'device') deviceStep();
          else {
            free = blocks;
            guest.release();
          }
        }
        host.start();
        host.done();
        guest.onConfig(host.commandId);
        while (guestStep()) deviceStep();
        while (ring.length > 0) deviceStep();
        expect([free, guest.state.holding, guest.state.active]).toEqual([blocks, false, HINT_STOP]);
        expect(host.phase).toBe('done');
      }),
      { numRuns: 1000 },
    );
  });
});
