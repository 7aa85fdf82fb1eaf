/** Certificates made for a test: CAs, and who they sign. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TlsIdentity } from '../../src/transfer/tls.ts';

export class Authority {
  readonly directory = mkdtempSync(join(tmpdir(), 'aerostat-test-tls-'));
  readonly #name: string;
  #signed = 0;

  constructor(name: string) {
    this.#name = name;
    this.#openssl(
      ...['req', '-x509', '-nodes', ...KEY, '-days', '2', '-subj', `/CN=${name}`],
      ...['-keyout', 'ca.key', '-out', 'ca.pem'],
    );
  }

  /** A certificate for these names and days, and the CA as who is trusted: ours, or that of `trusts`. */
  sign(names: readonly string[], trusts: Authority = this, days = 2): TlsIdentity {
    const file = `signed-${this.#signed++}`;
    writeFileSync(join(this.directory, `${file}.ext`), `subjectAltName=${names.join(',')}\n`);
    this.#openssl(
      'req',
      '-nodes',
      '-new',
      ...KEY,
      '-subj',
      `/CN=${file} of ${this.#name}`,
      '-keyout',
      `${file}.key`,
      '-out',
      `${file}.csr`,
    );
    this.#openssl(
      ...['x509', '-req', '-in', `${file}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial'],
      ...['-days', `${days}`, '-extfile', `${file}.ext`, '-out', `${file}.pem`],
    );
    return { cert: this.#read(`${file}.pem`), key: this.#read(`${file}.key`), ca: trusts.#read('ca.pem') };
  }

  close(): void {
    rmSync(this.directory, { recursive: true });
  }

  #read(name: string): string {
    return readFileSync(join(this.directory, name), 'utf8');
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.directory, stdio: 'pipe' });
  }
}

/** As fast to make as they come. */
const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
