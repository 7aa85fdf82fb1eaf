/**
 * Free page hint sessions from the guest's side: blocks of free memory are taken out of the allocator, named to the
 * host, and kept until it needs them named no longer, or until the guest is short of memory. What has to be sent when
 * is {@link HintResponder}'s to say (balloon/hint-session.ts).
 */

import {
  HINT_COMMAND_BYTES,
  HINT_STOP,
  HintResponder,
  type HintResponderState,
} from '../balloon/hint-session.ts';
import { FREE_BLOCK, type KernelMemory, type Shrinker } from '../memory/kernel-memory.ts';
import { LinkedPages } from '../memory/linked-pages.ts';
import { gpaOf, PAGE_SIZE } from '../memory/page.ts';
import { NIL, ORDER_MAX, PAGES_PER_BLOCK_MAX } from '../memory/page-blocks.ts';
import type { UsedBuffer } from '../virtio/queue.ts';
import type { DriverMemory, Stretch } from './driver-memory.ts';
import type { DriverRing } from './driver-ring.ts';
import { DriverProbeError } from './errors.ts';
import { HINTS_OWNER } from './former-driver.ts';
import type { QueuePart } from './queue-part.ts';

/** Command buffers that may be with the host: the start and the STOP of one session, and the start of the next. */
const COMMANDS_MAX = 3;

/** The first token of blocks; those of command buffers are their numbers. */
const BLOCK = COMMANDS_MAX;

export class HintsPart implements QueuePart, Shrinker {
  readonly name = HINTS_OWNER;
  readonly #ring: DriverRing;
  readonly #kernel: KernelMemory;
  readonly #responder: HintResponder;
  /** Blocks that are kept out of the allocator, all of the largest order. */
  readonly #held: LinkedPages;
  /** Blocks whose buffers are with the host, by token, where they are not kept before they are back (HINT_WAIT_ON_ACK). */
  readonly #awaited = new Map<number, number>();
  /** Tokens that had a block with the host, and have none now. */
  readonly #vacantTokens: number[] = [];
  readonly #waits: boolean;
  #owner = 0;
  readonly #commands: readonly Stretch[];
  readonly #vacantCommands: number[] = [];
  #unregister: () => void = () => {};
  #paused = false;
  #stopped = false;

  /** @throws DriverProbeError when the guest has no memory for the command buffers */
  constructor(
    ring: DriverRing,
    memory: DriverMemory,
    kernel: KernelMemory,
    { hasDone, waits }: { readonly hasDone: boolean; readonly waits: boolean },
    former?: HintResponderState,
  ) {
    this.#ring = ring;
    this.#waits = waits;
    this.#kernel = kernel;
    // The blocks of a session at another host are free here.
    this.#responder = new HintResponder({ hasDone }, former && { ...former, holding: false });
    this.#held = new LinkedPages(kernel.pages);
    this.#commands = Array.from({ length: COMMANDS_MAX }, (_, command) => {
      const stretch = memory.allocate(HINT_COMMAND_BYTES);
      if (stretch === undefined) throw new DriverProbeError('the guest has no memory for hint commands');
      this.#vacantCommands.push(command);
      return stretch;
    });
  }

  /** Pages that are kept for the host's sake. */
  get heldPages(): number {
    return this.#held.length * PAGES_PER_BLOCK_MAX;
  }

  start(): void {
    const removeShrinker = this.#kernel.addShrinker(this);
    this.#owner = this.#kernel.addOwner({ name: HINTS_OWNER, contents: 'kept' });
    this.#unregister = () => {
      removeShrinker();
      this.#kernel.removeOwner(this.#owner);
    };
  }

  /** The configuration was read: the host wishes for this. */
  onConfig(commandId: number): void {
    if (this.#stopped) return;
    this.#responder.onConfig(commandId);
    this.turn();
  }

  turn(): void {
    this.#ring.turn(this.#returned, this.#work);
  }

  readonly #work = (): boolean => {
    if (this.#stopped) return false;
    while (!this.#paused && this.#step()) {
      // Until there is nothing to do or no room to do it.
    }
    this.#ring.flush();
    return true;
  };

  /** A guest that stands still may go on at another host, which asked for no hints: what was hinted is free. */
  pause(): void {
    this.#paused = true;
    this.takeBack();
  }

  /** What is held goes back to the guest early, as it would at {@link pause}. A hint promises nothing, so that is allowed. */
  takeBack(): void {
    this.#release(this.#held.length);
    this.#responder.release();
  }

  get quiet(): boolean {
    return this.#ring.queue.outstandingCount === 0;
  }

  resume(): void {
    this.#paused = false;
    this.turn();
  }

  /** How far the session has come. */
  get state(): HintResponderState {
    return this.#responder.state;
  }

  deviceLost(): void {
    this.#release(this.#held.length);
    this.#responder.reset();
  }

  stop(): void {
    this.#stopped = true;
  }

  abandon(): void {
    for (const pfn of this.#awaited.values()) this.#kernel.free(pfn, ORDER_MAX);
    this.#awaited.clear();
    this.#vacantTokens.length = 0;
    this.#release(this.#held.length);
    this.#responder.reset();
    this.#unregister();
  }

  // Shrinker: a guest that is short of memory takes hinted blocks back. A hint promises nothing.

  count(): number {
    return this.heldPages;
  }

  scan(pages: number): number {
    const released = this.#release(Math.ceil(pages / PAGES_PER_BLOCK_MAX));
    this.#ring.world.counters.hintedPagesReleased += released;
    if (this.#held.length === 0) this.#responder.release();
    return released;
  }

  readonly #returned = ({ token }: UsedBuffer): void => {
    if (token < BLOCK) {
      this.#vacantCommands.push(token);
      return;
    }
    const pfn = this.#awaited.get(token);
    if (pfn === undefined) return;
    // Only now may the guest use the block again, should it need to.
    this.#awaited.delete(token);
    this.#vacantTokens.push(token);
    if (this.#paused || !this.#responder.state.holding) this.#kernel.free(pfn, ORDER_MAX);
    else this.#held.pushHead(pfn);
  };

  /** A token that no block has which is with the host: where none is vacant, those from BLOCK on are all taken. */
  #takeToken(): number {
    return this.#vacantTokens.pop() ?? BLOCK + this.#awaited.size;
  }

  /** Does the next thing that the session asks for; false when that is nothing, or when it has to wait for room. */
  #step(): boolean {
    switch (this.#responder.next()) {
      case 'begin':
        return this.#begin();
      case 'hint':
        return this.#hint();
      case 'end':
        if (!this.#send(HINT_STOP)) return false;
        this.#responder.end();
        return true;
      case 'release':
        this.#release(this.#held.length);
        this.#responder.release();
        return true;
      case 'wait':
        return false;
    }
  }

  /**
   * Another slot is left after the next buffer, for the STOP: a session has to end even when the host takes nothing any
   * more. Where the ring has one entry, the STOP waits for its turn.
   */
  get #leavesSlot(): boolean {
    return this.#ring.hasRoom(Math.min(2, this.#ring.queue.size));
  }

  #begin(): boolean {
    if (this.#vacantCommands.length === 0 || !this.#leavesSlot) return false;
    // What was hinted under an older id, perhaps too late to count, is free still: it is hinted again with the rest.
    this.#release(this.#held.length);
    this.#ring.world.counters.hintSessions++;
    return this.#send(this.#responder.begin());
  }

  #hint(): boolean {
    if (!this.#leavesSlot) return false;
    const pfn = this.#kernel.allocateFor(FREE_BLOCK, ORDER_MAX);
    if (pfn === NIL) {
      this.#responder.exhaust();
      return true;
    }
    const { segments, world } = this.#ring;
    segments.clear().addWritable(gpaOf(pfn), PAGES_PER_BLOCK_MAX * PAGE_SIZE);
    const token = this.#takeToken();
    this.#ring.add(token);
    this.#kernel.own(pfn, this.#owner);
    if (this.#waits) this.#awaited.set(token, pfn);
    else this.#held.pushHead(pfn);
    this.#responder.hold();
    world.counters.hintedPages += PAGES_PER_BLOCK_MAX;
    return true;
  }

  #send(commandId: number): boolean {
    const command = this.#vacantCommands.at(-1);
    if (command === undefined || !this.#ring.hasRoom(1)) return false;
    const { address } = this.#commands[command];
    const { segments, memory } = this.#ring;
    memory.setU32(address, commandId);
    segments.clear().addReadable(address, HINT_COMMAND_BYTES);
    this.#ring.add(command);
    this.#vacantCommands.pop();
    return true;
  }

  /** Gives up to `blocks` blocks back, the last hinted first; returns pages. */
  #release(blocks: number): number {
    let released = 0;
    for (; released < blocks; released++) {
      const pfn = this.#held.popHead();
      if (pfn === NIL) break;
      this.#kernel.free(pfn, ORDER_MAX);
    }
    return released * PAGES_PER_BLOCK_MAX;
  }
}
