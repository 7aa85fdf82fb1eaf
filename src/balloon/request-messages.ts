/**
 * The queue on which a host asks for something and the guest answers with page lists: `request` in the profiles
 * page-bitmap, page-order, page-range and page-chunks. Three generations of messages behind one interface. Who
 * sends what when is the device's and the driver's business.
 */
import { assert } from '../sys/error.ts';
import { struct } from '../sys/struct.ts';
import { BITMAP_HEADER } from './formats/page-bitmap.ts';
import { RESPONSE_HEADER } from './formats/response-header.ts';
import { type PageList, PageListError } from './page-list.ts';

/** Name the pages that you do not use; answered with page lists. The only command that was ever built. */
export const GET_UNUSED_PAGES = 0;
/**
 * Wishes of the mailing list that no driver had, as commands of our own. The numbers fit the 8 bits that the
 * shortest answer has for them, and leave the low ones to standards that count from 0.
 */
/** Drop clean page cache; answered with one empty list when it is done. */
export const DROP_CACHE = 0xa0;
/** Run the shrinkers, then answer as to GET_UNUSED_PAGES. */
export const SHRINK = 0xa1;

/** The flag of an answer: more of it follows, or it was the last. Even a last list of no pages says so. */
const ANSWER_CONT = 0;
const ANSWER_DONE = 1;
/** Bit 0 of the flags of a miscellaneous message: the last answer. */
const MISC_COMPLETION = 1;

/** What the host asks. A driver ignores a command that it does not know and posts its buffer again. */
export interface Request {
  readonly command: number;
  /** Comes back in the answers; 0 where the messages have no room for it. */
  readonly id: number;
}

/** What a page list on the request queue belongs to. */
interface Answer extends Request {
  /** No more lists follow. */
  readonly done: boolean;
}

export interface RequestProtocol {
  readonly name: string;
  /** Size of the in-buf that the guest posts; the device uses it with exactly this length. */
  readonly requestBytes: number;
  /** Bytes before the page list of an answer. */
  readonly prefixBytes: number;
  /** Ids go from 0 to this. */
  readonly idMax: number;
  writeRequest(view: DataView, request: Request): void;
  /** @throws PageListError `message` when the length is not `requestBytes` */
  readRequest(view: DataView, length: number): Request;
  /** Turns an encoded list, whose `start` must be `prefixBytes`, into an answer. */
  writeAnswer(list: PageList, answer: Answer): void;
  /**
   * Reads what a list answers and leaves the list's `start` where its pages begin.
   * @throws PageListError `truncated`
   */
  readAnswer(list: PageList): Answer;
}

/** v3 to v6: what the guest posts and the device fills in. */
const HOST_REQUEST = struct('host_request', 16, { command: ['u16', 0], parameter: ['u64', 8] });

/**
 * v10: what the guest posts is a whole message, the head of a list of chunks included; its driver takes a request of any
 * other length for none. The count must be 0: the driver answers in the same buffer, and goes on counting there.
 */
const MISC_REQUEST = struct('misc_request', 16, {
  command: ['u32', 0],
  flags: ['u32', 4],
  chunkCount: ['u64', 8],
});

/** v10: what comes before the page list of each answer. */
const MISC_MESSAGE = struct('misc_message', 8, { command: ['u32', 0], flags: ['u32', 4] });

function checkLength(length: number, expected: number): void {
  if (length === expected) return;
  throw new PageListError('message', `a request of ${length} bytes; ${expected} are agreed on`);
}

function checkPrefix(list: PageList, bytes: number): void {
  if (list.length >= bytes) return;
  throw new PageListError('truncated', `an answer of ${list.length} bytes; its header has ${bytes}`);
}

function checkId(id: number, idMax: number): void {
  assert(Number.isInteger(id) && id >= 0 && id <= idMax, `request id ${id}`);
}

const hostRequest = {
  requestBytes: HOST_REQUEST.size,
  prefixBytes: 0,
  writeRequest(view: DataView, { command, id }: Request): void {
    HOST_REQUEST.write(view, 0, { command, parameter: id });
  },
  readRequest(view: DataView, length: number): Request {
    checkLength(length, HOST_REQUEST.size);
    const { command, parameter } = HOST_REQUEST.read(view);
    return { command, id: parameter };
  },
};

/** The header of a page list, where it has fields for what the list answers. */
interface AnswerHeader<Fields> {
  readonly size: number;
  read(view: DataView): Fields;
  write(view: DataView, at: number, fields: Fields): void;
}

/** Command, flag and id of an answer are fields of its list's header, whose id goes up to `idMax`. */
const inHeader = <Fields extends { command: number; flag: number; requestId: number }>(
  header: AnswerHeader<Fields>,
  idMax: number,
) => ({
  ...hostRequest,
  idMax,
  writeAnswer(list: PageList, { command, id, done }: Answer): void {
    checkId(id, idMax);
    const flag = done ? ANSWER_DONE : ANSWER_CONT;
    header.write(list.view, 0, { ...header.read(list.view), command, flag, requestId: id });
  },
  readAnswer(list: PageList): Answer {
    checkPrefix(list, header.size);
    list.beginAt(0);
    const { command, flag, requestId } = header.read(list.view);
    return { command, id: requestId, done: flag === ANSWER_DONE };
  },
});

/** v3: the header of a bitmap. */
export const bitmapRequests: RequestProtocol = {
  name: 'bitmap',
  ...inHeader(BITMAP_HEADER, Number.MAX_SAFE_INTEGER),
};

/** v5 and v6: the header of a response. */
export const responseRequests: RequestProtocol = { name: 'response', ...inHeader(RESPONSE_HEADER, 0xffff) };

/** v10: the same message asks and answers, with a list of no chunks or of some. It carries no id. */
export const miscRequests: RequestProtocol = {
  name: 'misc',
  requestBytes: MISC_REQUEST.size,
  prefixBytes: MISC_MESSAGE.size,
  idMax: 0,
  writeRequest(view, { command }) {
    MISC_REQUEST.write(view, 0, { command, flags: 0, chunkCount: 0 });
  },
  readRequest(view, length) {
    checkLength(length, MISC_REQUEST.size);
    return { command: MISC_REQUEST.read(view).command, id: 0 };
  },
  writeAnswer(list, { command, done }) {
    assert(list.start === MISC_MESSAGE.size, 'a miscellaneous answer without room for its message');
    MISC_MESSAGE.write(list.view, 0, { command, flags: done ? MISC_COMPLETION : 0 });
  },
  readAnswer(list) {
    checkPrefix(list, MISC_MESSAGE.size);
    list.beginAt(MISC_MESSAGE.size);
    const { command, flags } = MISC_MESSAGE.read(list.view);
    return { command, id: 0, done: (flags & MISC_COMPLETION) !== 0 };
  },
};
