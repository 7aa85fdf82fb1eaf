/**
 * PCI configuration by the legacy ports, as a firmware does it: finding a function, sizing and placing its
 * base address registers, walking its capabilities (PCI Local Bus Specification 3.0, chapter 6). What a
 * capability means is not known here.
 */
import { PciError } from './errors.ts';
import type { Qtest } from './qtest.ts';

const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;
const CONFIG_ENABLE = 2 ** 31;

const DEVICES_MAX = 32;
const FUNCTIONS_MAX = 8;
const NO_FUNCTION = 0xffff_ffff;

/** Registers of a type 0 header, all read and written 32 bits at a time. */
const REGISTER = {
  ids: 0x00,
  commandStatus: 0x04,
  firstBar: 0x10,
  subsystem: 0x2c,
  capabilities: 0x34,
} as const;
const COMMAND = { IO: 1, MEMORY: 2, BUS_MASTER: 4, INTERRUPT_DISABLE: 1 << 10 } as const;
const STATUS_CAPABILITIES = 1 << 20;

export const BAR_COUNT = 6;
const BAR_IS_IO = 1;
const BAR_TYPE_64 = 0b100;
const BAR_TYPE_MASK = 0b110;
const BAR_FLAGS_MASK = 0xf;

/** Capabilities are at least 4 bytes and lie in the 192 bytes after the header; a longer list is a loop. */
const CAPABILITIES_MAX = 48;
const CAPABILITY_BYTES_MAX = 64;

interface PciIds {
  readonly vendor: number;
  readonly device: number;
}

interface PciCapability {
  readonly id: number;
  /** Where it lies in configuration space. */
  readonly offset: number;
  /** From its first byte on; more than it has, up to the end of configuration space. */
  readonly bytes: DataView;
}

interface Bar {
  readonly size: number;
  readonly wide: boolean;
}

/** One function on bus 0. */
export class PciFunction {
  readonly device: number;
  readonly function: number;
  readonly #qtest: Qtest;

  constructor(qtest: Qtest, device: number, functionNumber: number) {
    this.#qtest = qtest;
    this.device = device;
    this.function = functionNumber;
  }

  /** Its place as people write it, for example `00:04.0`. */
  get name(): string {
    return `00:${this.device.toString(16).padStart(2, '0')}.${this.function}`;
  }

  read(register: number): Promise<number> {
    this.#select(register);
    return this.#qtest.inl(CONFIG_DATA);
  }

  write(register: number, value: number): void {
    this.#select(register);
    this.#qtest.outl(CONFIG_DATA, value);
  }

  async ids(): Promise<PciIds | undefined> {
    const ids = await this.read(REGISTER.ids);
    return ids === NO_FUNCTION ? undefined : { vendor: ids & 0xffff, device: ids >>> 16 };
  }

  /** Lets the function answer at its addresses and reach guest memory; interrupts go out by its INTx line. */
  async enable(): Promise<void> {
    const { IO, INTERRUPT_DISABLE, MEMORY, BUS_MASTER } = COMMAND;
    const command = (await this.#command()) & ~(IO | INTERRUPT_DISABLE);
    this.write(REGISTER.commandStatus, command | MEMORY | BUS_MASTER);
  }

  /** Makes it deaf, which it must be while its addresses change. */
  async disable(): Promise<void> {
    const { IO, MEMORY, BUS_MASTER } = COMMAND;
    this.write(REGISTER.commandStatus, (await this.#command()) & ~(IO | MEMORY | BUS_MASTER));
  }

  /** Asks a base address register for its size. @throws PciError when it is no memory BAR */
  async sizeBar(index: number): Promise<Bar> {
    const register = barRegister(index);
    const before = await this.read(register);
    if ((before & BAR_IS_IO) !== 0) throw new PciError(`BAR ${index} of ${this.name} is not memory`);
    const wide = (before & BAR_TYPE_MASK) === BAR_TYPE_64;
    if (wide && index === BAR_COUNT - 1) throw new PciError(`BAR ${index} of ${this.name} has no upper half`);
    this.write(register, 0xffff_ffff);
    const low = ((await this.read(register)) & ~BAR_FLAGS_MASK) >>> 0;
    this.write(register, before);
    if (low === 0) throw new PciError(`BAR ${index} of ${this.name} is missing or larger than 4 GiB`);
    // The lowest bit that can be set is the size.
    return { size: (low & -low) >>> 0, wide };
  }

  placeBar(index: number, address: number, { wide }: Bar): void {
    this.write(barRegister(index), address);
    if (wide) this.write(barRegister(index + 1), 0);
  }

  /** All capabilities in the order of the list. @throws PciError when the list is nonsense */
  async capabilities(): Promise<PciCapability[]> {
    if (((await this.read(REGISTER.commandStatus)) & STATUS_CAPABILITIES) === 0) return [];
    const space = await this.#space();
    const found: PciCapability[] = [];
    let offset = space.getUint8(REGISTER.capabilities) & ~3;
    while (offset !== 0) {
      if (offset < 0x40 || found.length === CAPABILITIES_MAX) {
        throw new PciError(
          `the capability list of ${this.name} leads to 0x${offset.toString(16)} or in circles`,
        );
      }
      const length = Math.min(CAPABILITY_BYTES_MAX, space.byteLength - offset);
      const bytes = new DataView(space.buffer, offset, length);
      found.push({ id: bytes.getUint8(0), offset, bytes });
      offset = bytes.getUint8(1) & ~3;
    }
    return found;
  }

  async #command(): Promise<number> {
    // The upper half is the status, whose bits are cleared by writing 1.
    return (await this.read(REGISTER.commandStatus)) & 0xffff;
  }

  async #space(): Promise<DataView> {
    const space = new DataView(new ArrayBuffer(256));
    const reads = Array.from({ length: 64 }, (_, index) => this.read(index * 4));
    for (const [index, value] of (await Promise.all(reads)).entries())
      space.setUint32(index * 4, value, true);
    return space;
  }

  #select(register: number): void {
    const address = CONFIG_ENABLE + (this.device << 11) + (this.function << 8) + register;
    this.#qtest.outl(CONFIG_ADDRESS, address);
  }
}

const barRegister = (index: number): number => REGISTER.firstBar + 4 * index;

/** The first function on bus 0 that `wanted` accepts. */
export async function findPciFunction(
  qtest: Qtest,
  wanted: (ids: PciIds) => boolean,
): Promise<PciFunction | undefined> {
  const candidates: PciFunction[] = [];
  for (let device = 0; device < DEVICES_MAX; device++) {
    for (let number = 0; number < FUNCTIONS_MAX; number++)
      candidates.push(new PciFunction(qtest, device, number));
  }
  const ids = await Promise.all(candidates.map(candidate => candidate.ids()));
  return candidates.find((_, index) => ids[index] !== undefined && wanted(ids[index]));
}
