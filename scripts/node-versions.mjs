// Which versions of Node run the program: `engines` of package.json says it, and this reads it. It knows the few ways in
// which packages write such ranges; other words are an error.

const numbers = version => [...version.split('.').map(Number), 0, 0].slice(0, 3);

function compare(a, b) {
  const [some, others] = [numbers(a), numbers(b)];
  for (let at = 0; at < 3; at++) if (some[at] !== others[at]) return some[at] - others[at];
  return 0;
}

/** The alternatives of a range like `^20.19.0 || >=24`. */
function alternatives(range) {
  return range.split('||').map(words => {
    const [, sign, least] = /^(\^|>=) ?(\d+(?:\.\d+){0,2})(?:\.x)?$/.exec(words.trim()) ?? [];
    if (least === undefined) throw new Error(`no range of versions: ${range}`);
    return { sign, least };
  });
}

/** Whether a version like `22.13.0` is in the range. */
export const isIn = (version, range) =>
  alternatives(range).some(
    ({ sign, least }) =>
      compare(version, least) >= 0 && (sign === '>=' || numbers(version)[0] === numbers(least)[0]),
  );

/** The first version of each line that is in the range: `20.19`, `22.13`, `24`. */
export const firstsOf = range => alternatives(range).map(({ least }) => least.replace(/(\.0)+$/, ''));

/** The range in words: `20.19, 22.13, or 24 and newer`. */
export const wordsOf = range =>
  firstsOf(range)
    .join(', ')
    .replace(/, ([^,]*)$/, ' or $1 and newer');
