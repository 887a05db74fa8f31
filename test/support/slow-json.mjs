/**
 * Loaded into a gateway with `--import`: parsing JSON with the marker takes 60 ms. It stands for an input with
 * disproportionate cost, of which none is known.
 */
const MARKER = 'slow-on-purpose';
const MS = 60;
const { parse } = JSON;

JSON.parse = (text, reviver) => {
  if (String(text).includes(MARKER)) {
    const until = performance.now() + MS;
    while (performance.now() < until);
  }
  return parse(text, reviver);
};
