/** Guest memory of any size, of which nothing may ever be read or written; discarding it costs nothing. */
import { WindowedBacking } from '../../src/memory/backing.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';

export class UntouchableBacking extends WindowedBacking {
  readonly kind = 'shmem';
  readonly discardUnit: number;
  readonly size: number;

  constructor(size: number, discardUnit = PAGE_SIZE) {
    super();
    this.size = size;
    this.discardUnit = discardUnit;
  }

  window(): never {
    throw new Error('touched');
  }

  discard(): void {}

  residentBytes(): number {
    return 0;
  }

  close(): void {}
}
