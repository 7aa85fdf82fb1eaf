/**
 * The balloon's configuration space (VIRTIO 1.4, 5.5.4): one structure, of which every generation of the ABI
 * has a prefix, and the rule of which bytes belong to whom. Little-endian even for legacy devices.
 */
import { assert } from '../sys/error.ts';
import { struct } from '../sys/struct.ts';

export const CONFIG = struct('virtio_balloon_config', 16, {
  /** The host's target for the balloon, in 4 KiB pages. */
  numPages: ['u32', 0],
  /** What the guest says that the balloon holds, in 4 KiB pages. Written by the guest: reported, never trusted. */
  actual: ['u32', 4],
  /** STOP, DONE, or the free page hint session that the host wishes for (hint-session.ts). */
  freePageHintCommandId: ['u32', 8],
  /** What the guest's free pages are filled with; written before DRIVER_OK and constant from then on. */
  poisonValue: ['u32', 12],
});

/** Sizes in bytes of the prefixes that the profiles have. */
export const CONFIG_BYTES_BASE = CONFIG.offset.freePageHintCommandId;
export const CONFIG_BYTES_HINT = CONFIG.offset.poisonValue;
export const CONFIG_BYTES_POISON = CONFIG.size;

type ConfigField = keyof typeof CONFIG.offset;

/** The fields that the driver may write; the others are the device's alone. */
const DRIVER_WRITABLE_FIELDS: readonly ConfigField[] = ['actual', 'poisonValue'];

const FIELD_BYTES = 4;

const DRIVER_WRITABLE = new Uint8Array(CONFIG.size);
for (const field of DRIVER_WRITABLE_FIELDS) {
  DRIVER_WRITABLE.fill(1, CONFIG.offset[field], CONFIG.offset[field] + FIELD_BYTES);
}

/** Whether the driver may write byte `offset` of the configuration. */
export const isDriverWritable = (offset: number): boolean => DRIVER_WRITABLE[offset] === 1;

/**
 * Puts what the driver wrote at `offset` into `config` and skips the bytes that are not the driver's to write:
 * some front-ends write the whole space back at offset 0, the device's own fields included. What lies beyond
 * the end of `config` is ignored. Returns whether a byte changed.
 */
export function applyDriverWrite(config: Uint8Array, offset: number, written: Uint8Array): boolean {
  assert(config.length <= CONFIG.size, `a configuration of ${config.length} bytes`);
  const end = Math.min(offset + written.length, config.length);
  let changed = false;
  for (let at = Math.max(offset, 0); at < end; at++) {
    if (!isDriverWritable(at) || config[at] === written[at - offset]) continue;
    config[at] = written[at - offset];
    changed = true;
  }
  return changed;
}
