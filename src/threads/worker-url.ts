/**
 * Where a thread's program is, from the module that starts it: compiled if that is, source if not. Modules of the program may
 * be one file with others (scripts/bundle.mjs), which lies as deep as they do.
 */
export function workerUrl(path: string, from: string): URL {
  return new URL(`${path}${/\.(ts|cjs)$/.exec(from)?.[0] ?? '.js'}`, from);
}
