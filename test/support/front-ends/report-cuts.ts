/** Prints a row of the table in docs/front-ends.md, in the long form only (`npm run test:front-ends`). */
export function reportCuts(client: string, cut: string, right: number, all: number): void {
  if (process.env.FRONT_ENDS !== undefined) process.stdout.write(`| ${client} | ${cut} | ${right} of ${all} |\n`);
}
