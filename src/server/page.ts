/**
 * The dashboard's files, as `npm run build` left them in `dist/web`. They hold no secrets, so they are readable without
 * a token; everything that they show comes through the API, which asks for it. Only files that were there at the
 * first request are ever served, by their exact names.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { RequestError } from './problem.ts';

/** From `dist/server` as well as, in tests, from `src/server`. */
const BUILT = fileURLToPath(new URL('../../dist/web/', import.meta.url));

const ASSETS = 'assets';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/**
 * The page runs its own scripts and styles, asks its own origin, and nothing else: what a guest's name or an error
 * message might smuggle in has nowhere to go.
 */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

interface PageFile {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly type: string;
  /** Its name holds a digest of it. */
  readonly immutable: boolean;
}

/** Whether the path is one of the page's, and so readable without a token. */
export const isPagePath = (path: string): boolean =>
  path === '/' || path === '/favicon.svg' || path.startsWith(`/${ASSETS}/`);

/** Serves the page at `/`. */
export function servePage(app: OpenAPIHono, directory = BUILT): void {
  let files: ReadonlyMap<string, PageFile> | undefined;
  const serve = (context: Context): Response => {
    files ??= readFiles(directory);
    const { path } = context.req;
    const file = files.get(path);
    if (file !== undefined) return answer(context, file);
    throw new RequestError(
      'AEROSTAT_NOT_FOUND',
      path === '/'
        ? 'the dashboard is not built; run: npm run build. The API is described at /v1/openapi.json'
        : `the dashboard has no file ${path}; reload it`,
    );
  };
  for (const path of ['/', '/favicon.svg', `/${ASSETS}/:file`]) app.get(path, serve);
}

function answer(context: Context, { bytes, type, immutable }: PageFile): Response {
  return context.body(bytes, 200, {
    'Content-Type': type,
    'Content-Security-Policy': CONTENT_SECURITY_POLICY,
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cache-Control': immutable ? 'public, max-age=31536000, immutable' : 'no-cache',
  });
}

function readFiles(directory: string): Map<string, PageFile> {
  const files = new Map<string, PageFile>();
  const add = (path: string, immutable: boolean): void => {
    const type = TYPES[extname(path)];
    if (type === undefined) return;
    const bytes = new Uint8Array(readFileSync(join(directory, path)));
    files.set(path === 'index.html' ? '/' : `/${path}`, { bytes, type, immutable });
  };
  for (const name of namesIn(directory)) add(name, false);
  for (const name of namesIn(join(directory, ASSETS))) add(`${ASSETS}/${name}`, true);
  return files;
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => entry.name);
  } catch {
    return [];
  }
}
