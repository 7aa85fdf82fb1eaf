/**
 * The 8 bytes before the 64-bit entries of page-order and page-range lists. They say how much follows; on the
 * request queue also what is being answered (request-messages.ts).
 */
import { struct } from '../../sys/struct.ts';
import { type PageList, PageListError } from '../page-list.ts';
import { ENTRY_BYTES } from './blocks.ts';

export const RESPONSE_HEADER = struct('response_header', 8, {
  command: ['u8', 0],
  flag: ['u8', 1],
  requestId: ['u16', 2],
  /** Bytes that follow. */
  dataBytes: ['u32', 4],
});

export const RESPONSE_HEADER_BYTES = RESPONSE_HEADER.size;

/** Ends the list at `end` and writes its header; the entries are an out-buf of their own. */
export function finishResponse(list: PageList, end: number): void {
  const dataAt = list.start + RESPONSE_HEADER_BYTES;
  list.bytes.fill(0, list.start, dataAt);
  list.view.setUint32(list.start + RESPONSE_HEADER.offset.dataBytes, end - dataAt, true);
  list.length = end;
  list.cutCount = 0;
  if (end > dataAt) list.cutAt(dataAt);
}

/**
 * Checks the header against the bytes that came.
 * @throws PageListError
 */
export function checkResponse(list: PageList): void {
  if (list.extentCount > 0) throw new PageListError('direction', 'in-bufs beside a list of entries');
  if (list.listBytes < RESPONSE_HEADER_BYTES) {
    throw new PageListError('truncated', `a response header of ${list.listBytes} bytes`);
  }
  const announced = list.view.getUint32(list.start + RESPONSE_HEADER.offset.dataBytes, true);
  const present = list.listBytes - RESPONSE_HEADER_BYTES;
  if (announced !== present) {
    throw new PageListError(
      announced > present ? 'truncated' : 'surplus',
      `${present} bytes of entries where the header says ${announced}`,
    );
  }
  if (present % ENTRY_BYTES !== 0) {
    throw new PageListError('truncated', `an entry ends after ${present % ENTRY_BYTES} bytes`);
  }
}
