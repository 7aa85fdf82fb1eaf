// A FUSE file system with one file, which falls silent when that has been opened: it answers nothing any more, neither
// what the file is nor that it is closed. Its mount point is its argument; it says "mounted", and ends when it is killed.
import { constants, openSync, readSync, writeSync } from 'node:fs';
import koffi from 'koffi';

const [, , mountPoint] = process.argv;
const libc = koffi.load('libc.so.6');
const mount = libc.func(
  'int mount(const char *source, const char *target, const char *type, uint64_t flags, const char *data)',
);

const LOOKUP = 1;
const GETATTR = 3;
const OPEN = 14;
const INIT = 26;
const FILE_NODE = 2n;
const FILE_BYTES = 1n << 20n;

const fuse = openSync('/dev/fuse', constants.O_RDWR);
if (mount('silent', mountPoint, 'fuse', 0, `fd=${fuse},rootmode=40000,user_id=0,group_id=0`) !== 0) {
  process.stdout.write('refused\n');
  process.exit(1);
}
process.stdout.write('mounted\n');

function answer(unique, body) {
  const reply = Buffer.alloc(16 + body.length);
  reply.writeUInt32LE(reply.length, 0);
  reply.writeBigUInt64LE(unique, 8);
  body.copy(reply, 16);
  writeSync(fuse, reply);
}

function attributes(node) {
  const file = node === FILE_NODE;
  const attr = Buffer.alloc(88);
  attr.writeBigUInt64LE(node, 0);
  attr.writeBigUInt64LE(file ? FILE_BYTES : 0n, 8);
  attr.writeUInt32LE(file ? 0o100600 : 0o40700, 60);
  attr.writeUInt32LE(1, 64);
  attr.writeUInt32LE(4096, 80);
  return attr;
}

const request = Buffer.alloc(1 << 20);
for (let silent = false; !silent; ) {
  readSync(fuse, request);
  const opcode = request.readUInt32LE(4);
  const unique = request.readBigUInt64LE(8);
  const node = request.readBigUInt64LE(16);
  if (opcode === INIT) {
    const body = Buffer.alloc(64);
    body.writeUInt32LE(7, 0);
    body.writeUInt32LE(31, 4);
    body.writeUInt32LE(4096, 20);
    answer(unique, body);
  } else if (opcode === LOOKUP) {
    const body = Buffer.alloc(128);
    body.writeBigUInt64LE(FILE_NODE, 0);
    attributes(FILE_NODE).copy(body, 40);
    answer(unique, body);
  } else if (opcode === GETATTR) {
    answer(unique, Buffer.concat([Buffer.alloc(16), attributes(node)]));
  } else if (opcode === OPEN) {
    answer(unique, Buffer.alloc(16));
    silent = node === FILE_NODE;
  }
}
setInterval(() => {}, 1 << 30);
