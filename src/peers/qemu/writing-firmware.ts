/**
 * A firmware that is a guest: it writes to pages of a working set without end, one after the other in an order that looks
 * like chance, and counts what it has written. It knows no system and no device, and needs nothing but memory.
 */
import { PAGE_SIZE } from '../../memory/page.ts';
import { assert } from '../../sys/error.ts';

/** Where the guest counts what it has written, le32, and where it finds how long it waits after each write, le32. */
export const WRITTEN_AT = 0x2000;
export const PACE_AT = 0x3000;
/** Where its working set begins. */
export const WORKING_AT = 0x800_0000;

const FIRMWARE_BYTES = 2 ** 16;
/** The firmware ends where 4 GiB do. */
const LINEAR = 0xffff_0000;
const NOP = 0x90;

const GDT_AT = 0xfe00;
const GDT_POINTER_AT = 0xfe40;
const START_AT = 0xff00;
const FLAT_AT = 0xff40;
const RESET_AT = 0xfff0;

const CODE_SELECTOR = 8;
const DATA_SELECTOR = 16;
/** Null, and all of the 4 GiB as code and as data. */
const GDT = [0n, 0x00cf_9a00_0000_ffffn, 0x00cf_9200_0000_ffffn];

const le = (value: number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, index) => Math.floor(value / 2 ** (8 * index)) % 256);

/** Numerical Recipes' generator: with these two, every number of 32 bits has its turn. */
const MULTIPLIER = 1_664_525;
const INCREMENT = 1_013_904_223;

/** `workingPages` is a power of two. */
export function writingFirmware(workingPages: number): Uint8Array {
  const bits = Math.log2(workingPages);
  assert(Number.isInteger(bits) && bits > 0 && bits <= 20, `a working set of ${workingPages} pages`);
  const firmware = new Uint8Array(FIRMWARE_BYTES).fill(NOP);
  firmware.set(
    GDT.flatMap(entry => le(Number(entry & 0xffff_ffffn), 4).concat(le(Number(entry >> 32n), 4))),
    GDT_AT,
  );
  firmware.set([...le(GDT.length * 8 - 1, 2), ...le(LINEAR + GDT_AT, 4)], GDT_POINTER_AT);
  // jmp start
  firmware.set([0xe9, ...le(2 ** 16 + START_AT - (RESET_AT + 3), 2)], RESET_AT);
  firmware.set(
    [
      // cli; lgdt cs:[pointer]; mov eax, cr0; or al, 1; mov cr0, eax; jmp code:flat
      [0xfa],
      [0x2e, 0x66, 0x0f, 0x01, 0x16, ...le(GDT_POINTER_AT, 2)],
      [0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0],
      [0x66, 0xea, ...le(LINEAR + FLAT_AT, 4), ...le(CODE_SELECTOR, 2)],
    ].flat(),
    START_AT,
  );
  // mov ax, data; mov ds, ax
  const enter = [0x66, 0xb8, ...le(DATA_SELECTOR, 2), 0x8e, 0xd8];
  const write = [
    // imul ebx, ebx, multiplier; add ebx, increment
    [0x69, 0xdb, ...le(MULTIPLIER, 4), 0x81, 0xc3, ...le(INCREMENT, 4)],
    // mov edi, ebx; shr edi, 32 - bits; shl edi, 12
    [0x89, 0xdf, 0xc1, 0xef, 32 - bits, 0xc1, 0xe7, Math.log2(PAGE_SIZE)],
    // inc dword [edi + working]; inc dword [written]
    [0xff, 0x87, ...le(WORKING_AT, 4), 0xff, 0x05, ...le(WRITTEN_AT, 4)],
    // mov ecx, [pace]; or ecx, 1; dec ecx; jnz to dec
    [0x8b, 0x0d, ...le(PACE_AT, 4), 0x83, 0xc9, 0x01, 0x49, 0x75, 0xfd],
  ].flat();
  // jmp to the next write
  firmware.set([...enter, ...write, 0xeb, 256 - (write.length + 2)], FLAT_AT);
  return firmware;
}
