/**
 * The far end of a qtest connection, answered by a test: ports, memory, and whatever else a line may ask
 * for.
 */
import { Duplex } from 'node:stream';

const CONFIG_ADDRESS = 0xcf8;

/** Configuration space of one PCI function at 00:04.0; every other place is empty. */
export class FakeFunction {
  readonly space = new DataView(new ArrayBuffer(256));
  /** Sizes of memory BARs by number; all are 32 bits wide. */
  readonly bars = new Map<number, number>();

  constructor(vendor: number, device: number) {
    this.space.setUint16(0x00, vendor, true);
    this.space.setUint16(0x02, device, true);
  }

  /** Adds a capability in front of the list. */
  addCapability(offset: number, bytes: readonly number[]): this {
    this.space.setUint16(0x06, 0x10, true);
    for (const [index, byte] of bytes.entries()) this.space.setUint8(offset + index, byte);
    this.space.setUint8(offset + 1, this.space.getUint8(0x34));
    this.space.setUint8(0x34, offset);
    return this;
  }

  read(register: number): number {
    return this.space.getUint32(register, true);
  }

  write(register: number, value: number): void {
    const bar = (register - 0x10) / 4;
    if (bar >= 0 && bar < 6) {
      const size = this.bars.get(bar);
      if (size !== undefined) this.space.setUint32(register, (value & ~(size - 1)) >>> 0, true);
    } else if (register === 0x04) {
      this.space.setUint16(0x04, value & 0xffff, true);
    }
  }
}

export class FakeQtest extends Duplex {
  readonly lines: string[] = [];
  readonly pci: FakeFunction | undefined;
  /** Answers a line that is no access to configuration space. */
  answer: (line: string) => string = () => 'OK';
  #selected = 0;
  #rest = '';

  constructor(pci?: FakeFunction) {
    super();
    this.pci = pci;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    const lines = (this.#rest + chunk.toString()).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) {
      this.lines.push(line);
      const answer = this.#config(line) ?? this.answer(line);
      if (answer !== '') this.say(`${answer}\n`);
    }
    done();
  }

  say(text: string): void {
    this.push(Buffer.from(text));
  }

  #config(line: string): string | undefined {
    const [verb, port, value] = line.split(' ');
    if (verb === 'outl' && Number(port) === CONFIG_ADDRESS) {
      this.#selected = Number(value);
      return 'OK';
    }
    const mine = this.pci !== undefined && ((this.#selected >>> 8) & 0xffff) === 4 << 3;
    const register = this.#selected & 0xfc;
    if (verb === 'inl') return `OK 0x${(mine ? this.pci!.read(register) : 0xffffffff).toString(16)}`;
    if (verb === 'outl') {
      if (mine) this.pci!.write(register, Number(value));
      return 'OK';
    }
    return undefined;
  }
}
