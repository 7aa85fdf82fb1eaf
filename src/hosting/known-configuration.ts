/**
 * How much of the device a front-end knows. QEMU's generic device has to be told the size of the configuration space
 * (`config_size`) and the number of rings (`num_vqs`). Of configuration that it was not told the guest reads ones: a
 * target beyond all memory, or a hint session that was never asked for. Without its rings the guest's driver fails. The
 * device cannot keep the guest from either. It sees both by what the front-end never did, and says what to mend.
 */
import { CONFIG_BYTES_HINT } from '../balloon/config-space.ts';
import { PAGE_SIZE } from '../memory/page.ts';

/** What the device knows of its guest at the moment. */
interface GuestNow {
  readonly memoryBytes: number;
  readonly balloonedPages: number;
  readonly targetPages: number;
  /** Since the daemon started. */
  readonly hintBuffers: number;
}

const REMEDY = "QEMU's generic device needs config_size=16";

export class KnownConfiguration {
  #end = 0;
  #told = false;
  #toldOfRings = false;
  #hintBuffersBefore = 0;

  /** Another front-end comes, or another device of the one that is there. */
  begin(hintBuffers: number): void {
    this.#end = 0;
    this.#told = false;
    this.#toldOfRings = false;
    this.#hintBuffersBefore = hintBuffers;
  }

  /** What the front-end read of another daemon is not known: nothing is said of it. */
  goOn(): void {
    this.#told = true;
    this.#toldOfRings = true;
  }

  /** The front-end read `size` bytes from `offset` on. */
  read(offset: number, size: number): void {
    this.#end = Math.max(this.#end, offset + size);
  }

  /**
   * What is wrong with the `rings` that the front-end set up before there was a driver (0: it does not do that), where the
   * offered features need `needed`; told once.
   */
  complaintOfRings(rings: number, needed: number): string | undefined {
    if (this.#toldOfRings || rings === 0 || rings >= needed) return undefined;
    this.#toldOfRings = true;
    return `the front-end has ${rings} rings and the offered features need ${needed}: the guest's driver will fail; QEMU's generic device needs num_vqs=${needed}`;
  }

  /** What the guest does because its front-end hides the configuration from it; told once. */
  complaint(now: GuestNow): string | undefined {
    if (this.#told) return undefined;
    const complaint = this.#complaint(now);
    this.#told = complaint !== undefined;
    return complaint;
  }

  #complaint({ memoryBytes, balloonedPages, targetPages, hintBuffers }: GuestNow): string | undefined {
    const surplusBytes = (balloonedPages - targetPages) * PAGE_SIZE;
    if (this.#end === 0 && surplusBytes > memoryBytes / 4) {
      return `the guest gives memory away that it was not asked for: its front-end never read the device's configuration; ${REMEDY}`;
    }
    if (this.#end > 0 && this.#end < CONFIG_BYTES_HINT && hintBuffers > this.#hintBuffersBefore) {
      return `the guest hints its memory unasked and holds it: its front-end knows ${this.#end} bytes of the device's configuration, too few for the session's id; ${REMEDY}`;
    }
    return undefined;
  }
}
