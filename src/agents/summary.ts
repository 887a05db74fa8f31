const SUMMARY_LENGTH = 200;

/** Returns the first sentence of an answer, cut to `SUMMARY_LENGTH` characters. */
export function summaryOf(answer: string): string {
  const sentence = /^.+?[.!?](?:\s|$)/s.exec(answer)?.[0].trimEnd() ?? answer;
  return sentence.length > SUMMARY_LENGTH ? `${sentence.slice(0, SUMMARY_LENGTH - 1).toWellFormed()}…` : sentence;
}
