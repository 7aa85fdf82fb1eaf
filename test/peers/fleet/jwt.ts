/** JWTs of NATS as its own tool `nsc` makes them: an operator, an account of it with JetStream, and users of that. */
import { randomUUID } from 'node:crypto';
import { nkeys } from '@nats-io/transport-node';

type KeyPair = ReturnType<typeof nkeys.createUser>;

const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

function jwt(signer: KeyPair, subject: KeyPair, name: string, nats: object): string {
  const claims = {
    jti: randomUUID(),
    iat: Math.floor(Date.now() / 1000),
    iss: signer.getPublicKey(),
    sub: subject.getPublicKey(),
    name,
    nats: { version: 2, ...nats },
  };
  const body = `${part({ typ: 'JWT', alg: 'ed25519-nkey' })}.${part(claims)}`;
  return `${body}.${Buffer.from(signer.sign(new TextEncoder().encode(body))).toString('base64url')}`;
}

const UNBOUND = { subs: -1, data: -1, payload: -1 };
const ACCOUNT = { imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 };
const JETSTREAM = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 };

export class Operator {
  readonly #operator = nkeys.createOperator();
  readonly #system = nkeys.createAccount();
  readonly #account = nkeys.createAccount();

  /** For a server that trusts it. */
  get configuration(): string {
    const system = this.#system.getPublicKey();
    const operator = jwt(this.#operator, this.#operator, 'O', { type: 'operator', system_account: system });
    const account = (key: KeyPair, name: string, limits: object) =>
      jwt(this.#operator, key, name, { type: 'account', limits: { ...UNBOUND, ...ACCOUNT, ...limits } });
    return [
      `operator: ${operator}`,
      `system_account: ${system}`,
      'resolver: MEMORY',
      'resolver_preload: {',
      `  ${system}: ${account(this.#system, 'SYS', {})}`,
      `  ${this.#account.getPublicKey()}: ${account(this.#account, 'FLEET', JETSTREAM)}`,
      '}',
    ].join('\n');
  }

  /** A file of `--creds`. */
  creds(name: string): string {
    const user = nkeys.createUser();
    const token = jwt(this.#account, user, name, { type: 'user', pub: {}, sub: {}, ...UNBOUND });
    const seed = new TextDecoder().decode(user.getSeed());
    return [
      ...['-----BEGIN NATS USER JWT-----', token, '------END NATS USER JWT------', ''],
      ...['-----BEGIN USER NKEY SEED-----', seed, '------END USER NKEY SEED------', ''],
    ].join('\n');
  }
}
