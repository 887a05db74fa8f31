/**
 * `text` without the run of `characters` at its end. One pass from the end: the expression `/x+$/` takes quadratic time
 * over a run of x that another character follows.
 * @param characters each UTF-16 unit of it is removed
 */
export function withoutTrailing(text: string, characters: string): string {
  let end = text.length;
  while (end > 0 && characters.includes(text.charAt(end - 1))) end -= 1;
  return text.slice(0, end);
}
