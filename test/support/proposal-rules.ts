/**
 * What the proposals of 2016 to 2019 have in their posted text, rule by rule, and the test that holds our reading to it:
 * the last section of `docs/conformance.md`. A test that is named here and is not there fails documents.test.ts.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

interface Rule {
  readonly rule: string;
  /** The patch, by its series and number; its message's id is in {@link MESSAGES}. */
  readonly patch: keyof typeof MESSAGES;
  readonly file: string;
  /** What the test's title begins with. */
  readonly title: string;
}

/** The messages on the kernel's lists that were read, by which archives find them. */
const MESSAGES = {
  'v3 7/7': '1477031080-12616-8-git-send-email-liang.z.li@intel.com',
  'v5 5/5': '1480495397-23225-6-git-send-email-liang.z.li@intel.com',
  'v6 3/5': '1482303148-22059-4-git-send-email-liang.z.li@intel.com',
  'v10 6/6': '1493887815-6070-7-git-send-email-wei.w.wang@intel.com',
  'v18 7/10': '20171201171746-mutt-send-email-mst@kernel.org',
  'v18 9/10': '1511963726-34070-10-git-send-email-wei.w.wang@intel.com',
  'v20 4/7': '1513685879-21823-5-git-send-email-wei.w.wang@intel.com',
  'v20 6/7': '1513685879-21823-7-git-send-email-wei.w.wang@intel.com',
  'v21 2/5, 4/5': '201801112006.EHD48461.LOtVFFSOJMOFHQ@I-love.SAKURA.ne.jp',
  'Duyck v1 6/6': '20190619223338.1231.52537.stgit@localhost.localdomain',
  'device init': 'cover.1777995753.git.mst@redhat.com',
  'hint ack': 'virtio_balloon: Support wait on ACK for hinting, Jack Thomson, 2026-01-19',
} as const;

const formats = (name: string) => `test/balloon/formats/${name}.test.ts`;
const REQUESTS = 'test/balloon/request-messages.test.ts';
const ZEROED = 'test/device/zeroed-pages.test.ts';
const ASKING = 'test/hosting/guest-requests.test.ts';

// biome-ignore format: a table, one line a rule
const RULES: readonly Rule[] = [
  { patch: 'v3 7/7', rule: 'a header of 32 bytes, then buffers of 32 KiB, of which the last ends where the bitmap does', file: formats('page-bitmap'), title: 'is cut into bitmaps of 32 KiB behind its header' },
  { patch: 'v3 7/7', rule: 'the bitmap has as many bytes as pages divided by eight, which need not be whole words', file: formats('page-bitmap'), title: 'may have any number of bytes' },
  { patch: 'v3 7/7', rule: 'a request is 16 bytes, its id the parameter; a buffer of another length is none', file: REQUESTS, title: 'of v3 to v6 are 16 bytes' },
  { patch: 'v3 7/7', rule: 'the answer carries command, flag and id in the header of the bitmap', file: REQUESTS, title: 'of v3 carry command, flag and id' },
  { patch: 'v3 7/7', rule: 'an unknown command is not answered, and the driver keeps the buffer', file: ASKING, title: 'is not called busy when its driver keeps the buffer' },
  { patch: 'v5 5/5', rule: 'a head has 52 bits of page frame, 6 of page shift, 6 of the length of the bitmap in bytes', file: formats('page-order'), title: 'is a header of 8 bytes and a 64-bit head a block' },
  { patch: 'v5 5/5', rule: 'bitmaps behind a head have 64 bits', file: formats('page-order'), title: 'has a bitmap of 64 pages behind a head' },
  { patch: 'v5 5/5', rule: 'heads of an answer have no bitmap; the driver leaves the bits of its length as they were', file: formats('page-order'), title: 'is refused where a head announces a bitmap' },
  { patch: 'v5 5/5', rule: 'only the list of single pages is flagged DONE, so an answer may have no last list', file: ASKING, title: 'is answered when the buffer comes back after lists of which none' },
  { patch: 'v6 3/5', rule: 'a range has 52 bits of page frame and 12 of length; length 0 says that the next word is the length', file: formats('page-range'), title: 'takes a second entry for a length from 4096 on' },
  { patch: 'v6 3/5', rule: 'the driver tests for more than 4096 and so spoils ranges of exactly that', file: formats('page-range'), title: 'of the posted driver, which spoils ranges of exactly 4096 pages' },
  { patch: 'v6 3/5', rule: 'header and entries are two buffers', file: formats('page-range'), title: 'is cut behind its header' },
  { patch: 'v10 6/6', rule: 'the buffer for requests is 16 bytes, the head of the chunks included', file: REQUESTS, title: 'of v10 are 16 bytes' },
  { patch: 'v10 6/6', rule: 'an answer is command and flags before the chunks; bit 0 of the flags is on the last', file: REQUESTS, title: 'of v10 are a message before the list of chunks' },
  { patch: 'v10 6/6', rule: 'an unknown command is not answered, and the buffer is posted again', file: ASKING, title: 'is told of at once when its driver posts its buffer again without an answer' },
  { patch: 'v10 6/6', rule: 'base and size of a chunk are shifted by 12 bits', file: formats('page-chunks'), title: 'is a count and base and size of each chunk' },
  { patch: 'v20 4/7', rule: 'a run is an in-buf of its own, of at most 4 GiB - 4 KiB', file: formats('sg'), title: 'are cut at 4 GiB - 4 KiB' },
  { patch: 'v18 7/10', rule: 'a run is an in-buf of its own, of at most 4 GiB - 4 KiB; the ring is filled before the driver waits', file: formats('sg'), title: 'are cut at 4 GiB - 4 KiB' },
  { patch: 'v18 7/10', rule: 'a driver in need takes pages back as in-bufs of one page each', file: formats('sg'), title: 'are the addresses and lengths of the buffers' },
  { patch: 'v18 9/10', rule: 'a session is an id in 4 bytes, in-bufs of free blocks of every order, and STOP, which is 0; there is no DONE', file: formats('sg'), title: 'are one to a list, or as many as a chain may have' },
  { patch: 'v20 4/7', rule: 'a driver without F_SG sends page frame numbers in an out-buf', file: formats('sg'), title: 'page frame numbers are still taken in their place' },
  { patch: 'v20 4/7', rule: 'a driver in need takes pages back as in-bufs of one page each', file: formats('sg'), title: 'are the addresses and lengths of the buffers' },
  { patch: 'v20 6/7', rule: 'a session is an id in 4 bytes, in-bufs of free blocks of every order, and STOP; there is no DONE', file: formats('sg'), title: 'are one to a list, or as many as a chain may have' },
  { patch: 'v21 2/5, 4/5', rule: 'a run is an in-buf of its own, of at most 4 GiB - 4 KiB, and so is a free block of any order', file: formats('sg'), title: 'are cut at 4 GiB - 4 KiB' },
  { patch: 'Duyck v1 6/6', rule: 'a word is the physical address with the order, counted from 4 KiB, in its low bits', file: formats('address-or-order'), title: 'is a 64-bit address a block, with the order' },
  { patch: 'Duyck v1 6/6', rule: 'a buffer has up to 32 words', file: formats('address-or-order'), title: 'takes 32 blocks a buffer' },
  { patch: 'device init', rule: 'with bit 6, the used length of a report says how many of its bytes are zeros', file: ZEROED, title: 'has the length of its pages' },
  { patch: 'device init', rule: 'with bit 7, the driver leaves room for a bitmap behind a list that inflates; bit N is page frame number N', file: ZEROED, title: 'says of every page that it is zeros' },
  { patch: 'device init', rule: 'the driver reads no more of the bitmap than the used length says', file: ZEROED, title: 'says nothing of pages that are no memory' },
  { patch: 'device init', rule: 'with PAGE_POISON and a value, nothing is said to be zeros', file: ZEROED, title: 'a driver that wants other values than zeros' },
  { patch: 'hint ack', rule: 'with bit 6, the driver waits for a hint to be returned before its block may be used again, so that the device may change it', file: 'test/device/profiles.test.ts', title: 'blocks that the guest keeps until their hint is returned' },
];

function proofOf({ file, title }: Rule): string {
  const text = readFileSync(join(root, file), 'utf8');
  const found = [...text.matchAll(/test\(\s*(['"])(.*?)\1,/g)].find(([, , name]) => name.startsWith(title));
  if (found === undefined) throw new Error(`${file} has no test "${title} …"`);
  return `[${found[2]}](../${file})`;
}

export const proposalSection = (): string => `## The proposed ABIs

What the posted patches do, as they were read on the kernel's lists (the messages' ids are below), and the test of our
reading. What no patch does is not here: our own drivers may do it too.

What could not be read: of v18 7/10 the posted message itself (a reply quotes all of it), of v21 2/5 and 4/5 all but
what a reply quotes, of v19 everything but its patches 2 and 3, which are not about the device. Of the drafts of 2026:
the text of the specification's patches (the cover letter, the issues 242 and 244 of virtio-spec, the descriptions of
the Linux patches and QEMU's test of them were read; no draft says what the used length of a report of several blocks
means when not all of them are zeros: here it ends at the first that is not), and of HINT_WAIT_ON_ACK the posted message
(the patch is kept in fc-kernels). v18's driver names a page that compaction moved away on the inflate queue, where
v20's has the deflate queue: its guest loses such pages, and no device can tell.

| patch | rule | the test |
|---|---|---|
${RULES.map(rule => `| ${rule.patch} | ${rule.rule} | ${proofOf(rule)} |`).join('\n')}

${Object.entries(MESSAGES)
  .map(([patch, id]) => `- ${patch}: \`${id}\``)
  .join('\n')}
`;
